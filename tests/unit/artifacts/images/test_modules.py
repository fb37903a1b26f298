# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules, in which order."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from harness.artifacts.images.modules import closure, contents, dependencies
from harness.errors import BuildFailed


def _module(path: Path, depends: str, softdep: str = "") -> None:
    """A file with the strings that .modinfo of a module has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = b"\x7fELF..\0license=GPL\0" + f"depends={depends}\0".encode()
    raw += f"softdep={softdep}\0".encode() if softdep else b""
    path.write_bytes(lzma.compress(raw) if path.name.endswith(".xz") else raw)


def test_needed_ones_first_and_once(tmp_path: Path) -> None:
    _module(tmp_path / "kvm/kvm-amd.ko", "kvm,ccp")
    _module(tmp_path / "kvm/kvm.ko.xz", "irqbypass")
    _module(tmp_path / "lib/irqbypass.ko", "")
    _module(tmp_path / "net/virtio_net.ko", "virtio", "pre: crc32c post: late")
    _module(tmp_path / "virtio.ko", "")
    _module(tmp_path / "crc32c.ko", "")
    _module(tmp_path / "late.ko", "")
    found = [name for name, _ in closure(tmp_path, ["virtio_net", "kvm_amd", "irqbypass", "absent"])]
    assert found == ["virtio", "crc32c", "virtio_net", "irqbypass", "kvm", "kvm_amd"]


def test_compressed(tmp_path: Path) -> None:
    _module(tmp_path / "kvm.ko.xz", "irqbypass")
    assert dependencies(contents(tmp_path / "kvm.ko.xz")) == ["irqbypass"]


def test_circle(tmp_path: Path) -> None:
    _module(tmp_path / "a.ko", "b")
    _module(tmp_path / "b.ko", "a")
    with pytest.raises(BuildFailed, match="circle: a b"):
        closure(tmp_path, ["a"])
