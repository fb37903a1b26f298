# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules, in which order: real relocatable objects, real kmod."""

from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.images.modules import closure, contents
from harness.errors import BuildFailed


def module(path: Path, *, exports: str = "", needs: tuple[str, ...] = (), softdep: str = "") -> None:
    """What depmod looks at: exported names, undefined symbols, and .modinfo."""
    lines = [".section .modinfo", '.asciz "license=GPL"']
    lines += [f'.asciz "softdep={softdep}"'] if softdep else []
    if exports:
        lines += [f".globl {exports}", ".text", f"{exports}:", "ret"]
        lines += ['.section __ksymtab_strings,"aMS",@progbits,1', f'.asciz "{exports}"']
    lines += [".data", *(f".quad {name}" for name in needs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name(path.name.removesuffix(".xz"))
    subprocess.run(["as", "-o", plain, "-"], input="\n".join(lines) + "\n", text=True, check=True)
    if path != plain:
        path.write_bytes(lzma.compress(plain.read_bytes()))
        plain.unlink()


def test_needed_ones_first_and_once(tmp_path: Path) -> None:
    module(tmp_path / "kvm/kvm-amd.ko", needs=("kvm_init", "ccp_do"))
    module(tmp_path / "kvm/kvm.ko.xz", exports="kvm_init", needs=("irq_bypass",))
    module(tmp_path / "crypto/ccp.ko", exports="ccp_do")
    module(tmp_path / "lib/irqbypass.ko", exports="irq_bypass")
    module(tmp_path / "net/virtio_net.ko", needs=("virtio_add",), softdep="pre: crc32c")
    module(tmp_path / "virtio.ko", exports="virtio_add")
    module(tmp_path / "crc32c.ko")
    module(tmp_path / "nobody.ko")
    found = closure(tmp_path, ["virtio_net", "kvm_amd", "irqbypass", "absent"])
    names = [name for name, _ in found]
    assert sorted(names) == ["ccp", "crc32c", "irqbypass", "kvm", "kvm_amd", "virtio", "virtio_net"]
    at = names.index
    assert max(at("virtio"), at("crc32c")) < at("virtio_net")
    assert at("irqbypass") < at("kvm") < at("kvm_amd") and at("ccp") < at("kvm_amd")
    assert dict(found)["kvm"] == tmp_path / "kvm/kvm.ko.xz"


def test_nothing_of_what_is_wanted_exists(tmp_path: Path) -> None:
    assert closure(tmp_path, ["absent"]) == []
    assert closure(tmp_path, []) == []


def test_compressed(tmp_path: Path) -> None:
    module(tmp_path / "kvm.ko.xz", exports="kvm_init")
    assert contents(tmp_path / "kvm.ko.xz").startswith(b"\x7fELF")


def test_circle(tmp_path: Path) -> None:
    module(tmp_path / "a.ko", exports="a_does", needs=("b_does",))
    module(tmp_path / "b.ko", exports="b_does", needs=("a_does",))
    with pytest.raises(BuildFailed, match=r"(?i)cycle"):
        closure(tmp_path, ["a"])


def test_a_file_that_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"not an object at all")
    with pytest.raises(BuildFailed, match="depmod"):
        closure(tmp_path, ["a"])
