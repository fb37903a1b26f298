# SPDX-License-Identifier: GPL-2.0-or-later
"""How many works are left, as the slab of a kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.agent.pages import works_left


@pytest.fixture
def slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slab that is KVM's own, and a debugfs beside it."""
    folder = tmp_path / "slab"
    folder.mkdir()
    (folder / "shrink").touch()
    (tmp_path / "debug" / "kvm").mkdir(parents=True)
    (tmp_path / "debug" / "kvm" / "exits").touch()
    monkeypatch.setattr(works_left, "SLAB", str(folder))
    return folder


def _left(slab: Path) -> int | None:
    return works_left.works_left(str(slab.parent / "debug"))


def test_objects_in_use_are_counted_when_the_slab_was_shrunk(slab: Path) -> None:
    (slab / "objects_partial").write_text("2 N0=2\n")
    assert _left(slab) == 2
    (slab / "objects").write_text("31 N0=31\n")
    assert _left(slab) == 31
    assert (slab / "shrink").read_text() == "1"


def test_nobody_can_tell_where_the_slab_is_shared_or_not_counted(slab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _left(slab) is None, "CONFIG_SLUB_TINY"
    (slab / "objects").write_text("31 N0=31\n")
    assert works_left.works_left("") is None, "no debugfs"
    link = slab.parent / "link"
    link.symlink_to(slab)
    monkeypatch.setattr(works_left, "SLAB", str(link))
    assert _left(slab) is None


def test_works_of_another_vm_are_no_leak_and_one_without_vcpus_has_none(slab: Path) -> None:
    (slab / "objects").write_text("31 N0=31\n")
    vm = slab.parent / "debug" / "kvm" / "4711-12"
    (vm / "vcpu0").mkdir(parents=True)
    (vm / "exits").touch()
    assert _left(slab) is None
    (vm / "vcpu0").rmdir()
    assert _left(slab) == 31, "the agent's own VM (resident.py)"


def test_a_host_that_has_not_loaded_kvm_has_no_vm(slab: Path) -> None:
    (slab / "objects").write_text("0\n")
    assert works_left.works_left(str(slab.parent)) == 0


def test_a_context_that_somebody_has_open_is_no_leak(slab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(works_left, "CONTEXTS", str(slab))
    assert works_left.contexts_left() is None
    (slab / "objects").write_text("2 N0=2\n")
    (slab.parent / "fd").mkdir()
    for number, target in enumerate((works_left.FILE, "/dev/null")):
        (slab.parent / "fd" / str(number)).symlink_to(target)
    monkeypatch.setattr(works_left, "DESCRIPTORS", f"{slab.parent}/fd/*")
    assert works_left.contexts_left() == 1
    (slab / "objects").write_text("0\n")
    assert works_left.contexts_left() == 0, "closed meanwhile"
