# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU of another Debian release is started with its own libraries; what it is called is checked before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.artifacts.images.packaged_qemu import DEFAULT, OWN, PROGRAM, find_qemu, in_store, machine_qemu
from harness.artifacts.store import Store
from harness.errors import InfraFault, Unsupported, UsageError
from tests.unit.artifacts.mirror import Mirror

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


def _publish(mirror: Mirror, suite: str = "trixie") -> None:
    """A QEMU that says what it was told: echo(1), with the C library and the loader of this machine."""
    mirror.suite, mirror.paragraphs = suite, []
    libraries = {
        f"lib/x86_64-linux-gnu/{n}": (LIBRARIES / n).read_bytes() for n in ("ld-linux-x86-64.so.2", "libc.so.6")
    }
    mirror.add("libc6", libraries, version="2.41-1")
    files = {f"usr/bin/{PROGRAM}": Path("/usr/bin/echo").read_bytes(), "usr/share/doc/left-out": b""}
    mirror.add("qemu-system-x86", files, version="1:10.0-1", depends="libc6")
    mirror.add("seabios", {"usr/share/seabios/bios.bin": b"bios"})
    mirror.publish()


def test_it_runs_with_its_own_loader_and_finds_its_firmware(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    assert in_store(store.root) == {}
    found = find_qemu(store, "trixie")
    root = found.path.parent / "root"
    assert found.version == f"-L {root}/usr/share/qemu -L {root}/usr/share/seabios --version"
    assert (root / "usr/share/seabios/bios.bin").read_bytes() == b"bios"
    assert not (root / "usr/share/doc").exists()
    assert (root / "usr/lib/x86_64-linux-gnu/libc.so.6").is_file()
    assert in_store(store.root) == {"trixie": "1:10.0-1"}
    mirror.root.rename(tmp_path / "gone")
    assert find_qemu(store, "trixie") == found


def test_a_release_that_the_mirrors_lack(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    with pytest.raises(Unsupported, match="do not offer Debian forky"):
        find_qemu(Store(tmp_path / "cache"), "forky")


def test_the_machines_own_and_one_with_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "cache")
    own = find_qemu(store, OWN)
    assert own.path == machine_qemu() and str(own).startswith("QEMU emulator version ") and not own.instead
    assert find_qemu(store, str(own.path)) == own
    for wrong in ("potato", str(tmp_path / "none")):
        with pytest.raises(UsageError, match="there is no QEMU"):
            find_qemu(store, wrong)
    shutil.copyfile("/usr/bin/echo", tmp_path / "not-executable")
    with pytest.raises(InfraFault, match="cannot be run"):
        find_qemu(store, str(tmp_path / "not-executable"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraFault, match="not in PATH"):
        find_qemu(store, OWN)


def test_where_nothing_is_asked_for(mirror: Mirror, tmp_path: Path) -> None:
    """That of the default release; the machine's own, and why, only where that cannot be had."""
    _publish(mirror)
    store = Store(tmp_path / "cache")
    without = find_qemu(store, "")
    assert without.path == machine_qemu()
    why = f"the machine's own, not {DEFAULT}'s: this machine's package mirrors do not offer Debian {DEFAULT}"
    assert str(without) == f"{find_qemu(store, OWN).version} ({why})"
    _publish(mirror, DEFAULT)
    found = find_qemu(Store(tmp_path / "other"), "")
    assert (found, found.instead) == (find_qemu(Store(tmp_path / "other"), DEFAULT), "")
    assert found.path != machine_qemu()
