# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as one file: `python3 agent.pyz`, standard library and qemu.qmp only.

Compiled modules lie beside the sources: under emulation compiling takes seconds.  A Python of another
version than ours passes them over and compiles the sources (zipimport compares the magic number).
"""

from __future__ import annotations

import importlib.util
import marshal
import zipfile
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.store import Recipe, Store
from harness.errors import BuildFailed

_MAIN = b'import runpy\n\nrunpy.run_module("harness.agent", run_name="__main__", alter_sys=True)\n'
_DATE = (2020, 1, 1, 0, 0, 0)
# Interactive tools and the module of another licence are not for the agent.
_QMP_WITHOUT = {"legacy.py", "qmp_shell.py", "qmp_tui.py"}


def agent_zipapp(store: Store) -> Path:
    """The agent's zip archive, to be run by the host's Python (3.11 or later).

    :raise BuildFailed: qemu.qmp is not installed, or a source does not compile.
    """
    sources = _sources()
    files = {name: path.read_bytes() for name, path in sources.items()}
    files["__main__.py"] = _MAIN
    files["qemu/__init__.py"] = b""  # zipimport finds no package without one
    recipe = Recipe(
        "agent",
        {
            "files": {name: importlib.util.source_hash(data).hex() for name, data in files.items()},
            "magic": importlib.util.MAGIC_NUMBER.hex(),
            "version": 1,
        },
    )

    def build(folder: Path) -> None:
        with zipfile.ZipFile(folder / "agent.pyz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(files.items()):
                _add(archive, name, data)
                _add(archive, name + "c", _compiled(name, data))

    return store.get(recipe, build) / "agent.pyz"


def _sources() -> dict[str, Path]:
    """What the agent consists of, by its name in the archive."""
    ours = [path for part in ("agent", "contract") for path in (layout.HARNESS / part).rglob("*.py")]
    ours += [layout.HARNESS / "__init__.py", layout.HARNESS / "errors.py"]
    found = {str(path.relative_to(layout.REPOSITORY)): path for path in ours}
    spec = importlib.util.find_spec("qemu.qmp")
    if spec is None or spec.origin is None:
        raise BuildFailed("the Python package qemu.qmp is not installed")
    for path in Path(spec.origin).parent.glob("*.py"):
        if path.name not in _QMP_WITHOUT:
            found[f"qemu/qmp/{path.name}"] = path
    return found


def _compiled(name: str, data: bytes) -> bytes:
    """The source as a .pyc that is not checked against it (PEP 552)."""
    try:
        code = compile(data, name, "exec", dont_inherit=True, optimize=0)
    except SyntaxError as error:
        raise BuildFailed(f"{name}: {error}") from error
    flags = 0b01  # by hash, and the hash is not compared
    return (
        importlib.util.MAGIC_NUMBER
        + flags.to_bytes(4, "little")
        + importlib.util.source_hash(data)
        + marshal.dumps(code)
    )


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
