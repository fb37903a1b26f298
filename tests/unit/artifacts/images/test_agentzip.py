# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's archive."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from harness.artifacts.images.agentzip import agent_zipapp
from harness.artifacts.layout import HARNESS
from harness.artifacts.store import Store

_IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import qemu.qmp, harness.contract.plan, harness.errors
for module in (qemu.qmp, harness.contract.plan, harness.errors):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
    assert module.__file__.endswith(".pyc"), "compiled on the host"
print("fine")
"""


def test_imports_from_itself_alone_and_compiles_nothing(tmp_path: Path) -> None:
    archive = agent_zipapp(Store(tmp_path))
    words = [sys.executable, "-I", "-S", "-c", _IMPORT, str(archive)]
    assert subprocess.run(words, capture_output=True, text=True, check=True, cwd="/").stdout == "fine\n"


def test_holds_only_what_the_agent_may_import(tmp_path: Path) -> None:
    with zipfile.ZipFile(agent_zipapp(Store(tmp_path))) as archive:
        names = archive.namelist()
    ours = {name for name in names if name.startswith("harness/") and not name.startswith("harness/agent/")}
    expected = ["__init__", "errors", *(f"contract/{path.stem}" for path in (HARNESS / "contract").glob("*.py"))]
    assert ours == {f"harness/{name}.{end}" for name in expected for end in ("py", "pyc")}
    assert "qemu/qmp/legacy.py" not in names


def test_same_bytes_again(tmp_path: Path) -> None:
    one = agent_zipapp(Store(tmp_path / "1")).read_bytes()
    assert agent_zipapp(Store(tmp_path / "2")).read_bytes() == one
