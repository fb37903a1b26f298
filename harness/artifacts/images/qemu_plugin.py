# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin with which an emulated host's vCPU threads yield on PAUSE (guest-images/host-qemu/yield-on-pause.c)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.command import command, tool_version
from harness.artifacts.images.packaged_qemu import PROGRAM, QemuProgram
from harness.artifacts.store import Recipe, Store
from harness.errors import InfraFault

_SOURCE = layout.GUEST_IMAGES / "host-qemu" / "yield-on-pause.c"
_COMPILER = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
_PLUGIN, _REFUSED = "yield-on-pause.so", "refused.txt"
_TRIAL_S = 60.0


@dataclass(frozen=True, slots=True)
class PausePlugin:
    """``path``: what `qemu -plugin` loads; None: hosts are run without it, and ``reason`` says why."""

    path: Path | None
    reason: str = ""

    def __str__(self) -> str:
        return "its vCPU threads yield on PAUSE" if self.path else f"its vCPU threads spin on PAUSE ({self.reason})"


def pause_plugin(store: Store, qemu: QemuProgram) -> PausePlugin:
    """The plugin, if this QEMU takes it; what came of trying is kept.

    Without it a host does the same and takes longer, the more so the busier the machine is; so nothing is raised where
    there is no compiler, or a QEMU with another version of the plugin interface or with none.

    :raise BuildFailed: it does not compile.
    """
    if shutil.which("gcc") is None:
        return PausePlugin(None, "there is no gcc on this machine")
    recipe = Recipe(
        "qemu-plugin",
        {
            "source": layout.digest([_SOURCE], _SOURCE.parent),
            "compiler": [*_COMPILER, tool_version("gcc")],
            "qemu": [str(qemu.path), qemu.version],
        },
    )

    def build(folder: Path) -> None:
        plugin = folder / _PLUGIN
        command([*_COMPILER, "-o", plugin, _SOURCE.name], cwd=_SOURCE.parent)
        if reason := _refusal(qemu, plugin):
            plugin.unlink()
            (folder / _REFUSED).write_text(reason)

    try:
        made = store.get(recipe, build)
    except InfraFault as exc:
        return PausePlugin(None, exc.message)
    if (made / _REFUSED).exists():
        return PausePlugin(None, (made / _REFUSED).read_text())
    return PausePlugin(made / _PLUGIN)


def _refusal(qemu: QemuProgram, plugin: Path) -> str:
    """Start a machine with it that has nothing to execute, and end it; what QEMU did not like, empty if nothing.

    :raise InfraFault: it could not be started, or did not end; another time it may.
    """
    words = ["-accel", "tcg", "-M", "none", "-nodefaults", "-display", "none", "-monitor", "stdio", "-S"]
    try:
        done = subprocess.run(
            [qemu.path, *words, "-plugin", f"file={plugin}"],
            input=b"quit\n", capture_output=True, timeout=_TRIAL_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InfraFault(f"it could not be tried: {exc}") from exc
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"QEMU ended with code {done.returncode}"]
    return said[-1].removeprefix(f"{PROGRAM}: ").replace(str(plugin), plugin.name)
