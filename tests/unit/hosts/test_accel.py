# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM or TCG: each cheap condition, the functional test, and the kept answer; on made-up machines in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import DeadlineExpired, UsageError
from harness.hosts.accel import FORCE, find_accel, rule_out

INTEL = "processor : 0\nflags\t\t: fpu vme vmx sse2\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing speaks against KVM."""
    monkeypatch.delenv(FORCE, raising=False)
    for name, text in {
        "dev/kvm": "",
        "proc/cpuinfo": INTEL,
        "proc/sys/kernel/random/boot_id": "boot-1\n",
        "sys/module/kvm_intel/parameters/nested": "Y\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def never() -> None:
    raise AssertionError("the functional test must not run")


def test_nothing_rules_it_out(machine: Path) -> None:
    assert rule_out(machine) == ""


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("dev/kvm", None, "no /dev/kvm"),
        ("proc/cpuinfo", "flags : fpu vme\nbugs : vmx\n", "neither vmx nor svm"),
        ("proc/cpuinfo", "flags : fpu svm\n", "kvm_amd is not loaded"),
        ("sys/module/kvm_intel/parameters/nested", "N\n", "nesting switched off"),
        ("sys/module/kvm_intel/parameters/nested", None, "kvm_intel is not loaded"),
    ],
)
def test_ruled_out(machine: Path, name: str, text: str | None, reason: str) -> None:
    if text is None:
        (machine / name).unlink()
    else:
        (machine / name).write_text(text)
    assert reason in rule_out(machine)
    accel = find_accel(machine / "cache", never, root=machine)
    assert accel.name == "tcg"
    assert reason in accel.reason


def test_a_working_trial_is_kept_until_the_next_boot(machine: Path) -> None:
    trials: list[int] = []
    for _ in range(3):
        assert find_accel(machine / "cache", lambda: trials.append(1), root=machine).name == "kvm"
    assert len(trials) == 1
    (machine / "proc/sys/kernel/random/boot_id").write_text("boot-2\n")
    find_accel(machine / "cache", lambda: trials.append(1), root=machine)
    assert len(trials) == 2


def test_a_failed_trial_means_tcg(machine: Path) -> None:
    def trial() -> None:
        raise DeadlineExpired("the virtual host did not come up in 120 s")

    accel = find_accel(machine / "cache", trial, root=machine)
    assert accel.name == "tcg"
    assert "did not come up" in accel.reason
    assert find_accel(machine / "cache", never, root=machine) == accel


def test_a_broken_answer_is_asked_again(machine: Path) -> None:
    (machine / "cache").mkdir()
    (machine / "cache" / "accel.json").write_text('{"boot": "boot-1"}')
    assert find_accel(machine / "cache", lambda: None, root=machine).name == "kvm"


def test_forced(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE, "tcg")
    assert find_accel(machine / "cache", never, root=machine).name == "tcg"
    monkeypatch.setenv(FORCE, "hvf")
    with pytest.raises(UsageError, match="hvf"):
        find_accel(machine / "cache", never, root=machine)
