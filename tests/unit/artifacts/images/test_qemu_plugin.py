# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin is loaded by a QEMU that speaks its version, yields on each PAUSE, and is left out elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.images.packaged_qemu import DEFAULT, OWN, PROGRAM, QemuProgram, find_qemu, in_store
from harness.artifacts.images.qemu_plugin import pause_plugin
from harness.artifacts.store import Store
from tests.unit.waiting import HANG_S

# mov cx, 60000; again: pause; loop again; mov dx, 0xf4; mov al, 1; out dx, al
_PAUSES = bytes.fromhex("b960ea f390 e2fc baf400 b001 ee")
_EXITED = 3  # isa-debug-exit: twice what was written, and one

_COUNT = """
#include <stdio.h>
#include <stdlib.h>
static unsigned long yields;
int sched_yield(void) { yields++; return 0; }
__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("YIELDS");
    FILE *out = path ? fopen(path, "w") : NULL;
    if (out) { fprintf(out, "%lu", yields); fclose(out); }
}
"""


@pytest.fixture
def newest() -> QemuProgram:
    store = Store()
    if DEFAULT not in in_store(store.root):
        pytest.skip(f"the store has no QEMU of {DEFAULT}")
    return find_qemu(store, DEFAULT)


def _yields(qemu: QemuProgram, plugin: Path | None, folder: Path) -> int:
    """How often QEMU called sched_yield() while a boot sector executed PAUSE 60,000 times."""
    (folder / "boot").write_bytes(_PAUSES.ljust(510, b"\0") + b"\x55\xaa")
    (folder / "count.c").write_text(_COUNT)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "count.so", folder / "count.c"], check=True)
    words = ["-accel", "tcg", "-nodefaults", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4", "-boot", "c"]
    words += ["-drive", f"file={folder}/boot,format=raw", *(["-plugin", f"file={plugin}"] if plugin else [])]
    told = {"LD_PRELOAD": str(folder / "count.so"), "YIELDS": str(folder / "yields")}
    done = subprocess.run([qemu.path, *words], env=told, timeout=HANG_S, capture_output=True, check=False)
    assert done.returncode == _EXITED, done.stderr
    return int((folder / "yields").read_text())


def test_each_pause_of_the_guest_yields(newest: QemuProgram, tmp_path: Path) -> None:
    made = pause_plugin(Store(tmp_path / "cache"), newest)
    assert made.path is not None and made.reason == ""
    assert str(made) == "its vCPU threads yield on PAUSE"
    without = _yields(newest, None, tmp_path)
    # The firmware, which waits by time, executes others: how many hangs by the machine, but twice as many are none.
    assert 60_000 <= _yields(newest, made.path, tmp_path) - without < 120_000


def test_a_qemu_that_does_not_speak_its_version(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    own = find_qemu(store, OWN)
    made = pause_plugin(store, own)
    if made.path is not None:
        pytest.skip(f"{own} speaks it")
    assert "version" in made.reason or "plugin" in made.reason
    assert str(made) == f"its vCPU threads spin on PAUSE ({made.reason})"
    assert pause_plugin(store, own) == made


def test_a_program_that_is_no_qemu(tmp_path: Path) -> None:
    wrong = QemuProgram(Path("/bin/false"), "none")
    assert pause_plugin(Store(tmp_path / "cache"), wrong).reason == "QEMU ended with code 1"
    gone = QemuProgram(tmp_path / PROGRAM, "none")
    assert "could not be tried" in pause_plugin(Store(tmp_path / "cache"), gone).reason


def test_a_machine_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    made = pause_plugin(Store(tmp_path / "cache"), QemuProgram(Path("/bin/false"), "none"))
    assert made.path is None and "gcc" in made.reason
