# SPDX-License-Identifier: GPL-2.0-or-later
"""The one list of what the machine must have."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.kernels import kbuild
from harness.artifacts.layout import REPOSITORY
from harness.artifacts.needed_tools import Need, build_commands, needs
from harness.errors import InfraFault


def test_the_list_is_read() -> None:
    found = needs()
    assert Need("run", "qemu-system-x86", "qemu-system-x86_64") in found
    assert len({n.probe for n in found}) == len(found)
    assert {"gcc", "make", "perl", "setpriv", "flex"} <= set(build_commands())
    assert "qemu-system-x86_64" not in build_commands()
    assert build_commands() == kbuild.TOOLS


def test_what_the_code_runs_is_in_the_list() -> None:
    """Each tool that is looked for by name somewhere."""
    commands = {n.probe for n in needs() if n.is_command}
    assert {"mkfs.ext4", "setpriv", "dpkg-deb", "apt-get", "depmod", "modprobe", "tar", "patch"} <= commands


def test_a_probe_is_looked_for(tmp_path: Path) -> None:
    assert Need("run", "x", "sh").found() == shutil.which("sh")
    assert Need("run", "x", "no-such-command-anywhere").found() == ""
    assert Need("run", "x", str(tmp_path)).found() == str(tmp_path)
    assert Need("run", "x", str(tmp_path / "absent")).found() == ""


@pytest.mark.parametrize("line", ["run gcc", "sometimes gcc gcc", "run gcc gcc gcc"])
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "needs").write_text(f"# comment\n\n{line}\n")
    with pytest.raises(InfraFault, match=r"needs:3: "):
        needs(tmp_path / "needs")


def test_the_set_up_script_reads_the_same_list(tmp_path: Path) -> None:
    """With an empty PATH but for a shell's few tools, all packages of the list are missing."""
    script = (REPOSITORY / ".ci/setup").read_text()
    head = script[: script.index("python3 -c 'import venv")].replace('cd "$(dirname "$0")/.."', f"cd {REPOSITORY}")
    head = head.replace("PATH=$PATH:/usr/sbin:/sbin", "")
    (tmp_path / "setup").write_text(head + 'echo "$missing"\n')
    for tool in ("sed", "uname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    said = subprocess.run(
        ["/bin/sh", tmp_path / "setup"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    absent = {n.package for n in needs() if not n.found() or n.is_command}
    assert set(said.split()) == absent
