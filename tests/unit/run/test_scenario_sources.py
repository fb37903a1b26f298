# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files on disk: what is no regular file of text is refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.run.scenario_sources import default_scenarios, read_scenario_files, read_scenarios
from harness.scenario.bounds import MAX_TEXT

GOOD = 'id = "X1"\ntitle = "t"\n[pages.f]\ngroups = 1\n[[steps]]\ntouch = "f"\n'


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(GOOD)
    (tmp_path / "a.toml").write_text(GOOD.replace("X1", "X2"))
    (tmp_path / "notes.txt").write_text("not a scenario")
    assert [s.id for s in read_scenarios([tmp_path])] == ["X2", "X1"]


def test_the_repository_has_scenarios() -> None:
    assert len(read_scenarios([default_scenarios()])) > 40


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(UsageError, match=r"x\.toml: not a regular file"):
        read_scenarios([tmp_path / "x.toml"])


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(tmp_path: Path, device: str) -> None:
    (tmp_path / "x.toml").symlink_to(device)
    with pytest.raises(UsageError, match="not a regular file"):
        read_scenarios([tmp_path])


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=str(MAX_TEXT)):
        read_scenarios([tmp_path])


@pytest.mark.parametrize(("data", "told"), [(b"\xff\xfe", "not UTF-8"), (None, "No such file")])
def test_what_cannot_be_read_is_told(tmp_path: Path, data: bytes | None, told: str) -> None:
    if data is not None:
        (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(UsageError, match=told):
        read_scenarios([tmp_path / "x.toml"])


def test_each_bad_file_is_refused_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD.replace("X1", "X2") + 'fish = "x"\n')
    (tmp_path / "c.toml").write_text("id = [")
    (tmp_path / "d.toml").write_text(GOOD)  # its id is a.toml's
    (tmp_path / "e.toml").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "f.toml")
    (tmp_path / "g.toml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "h.toml").write_text(GOOD.replace("X1", "X8"))
    found = read_scenario_files([tmp_path])
    assert [s.id for s in found.scenarios] == ["X1", "X8"]
    told = {r.file.rpartition("/")[2]: (r.id, r.problems) for r in found.refused}
    assert list(told) == ["b.toml", "c.toml", "d.toml", "e.toml", "f.toml", "g.toml"]
    assert all(text.startswith(str(tmp_path / name)) for name, (_, text) in told.items())
    assert [own for own, _ in told.values()] == ["X2", "c", "X1", "e", "f", "g"]
    with pytest.raises(UsageError, match="No such file"):
        read_scenario_files([tmp_path / "nothing.toml"])
