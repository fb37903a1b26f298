# SPDX-License-Identifier: GPL-2.0-or-later
"""The images: from real packages, the same bytes again."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.images import images
from harness.artifacts.images.recipes import host_recipe
from harness.artifacts.kernels.built_kernel import BuiltKernel
from harness.artifacts.store import Store
from harness.errors import BuildFailed, InfraFault, Unsupported


def _bare(tmp_path: Path) -> BuiltKernel:
    """A kernel that has everything built in."""
    return BuiltKernel("k", tmp_path / "bzImage", None, "6.1", "6.1", "nowait", None)


def test_recipe_keeps_what_guests_boot_from() -> None:
    recipe = host_recipe()
    for path in ("usr/share/qemu/qboot.rom", "usr/share/seabios/bios-microvm.bin", "usr/bin/qemu-system-x86_64"):
        assert recipe.wants(path), path
    for path in ("usr/share/doc/python3/copyright", "usr/share/qemu/skiboot.lid", "usr/lib/python3.11/test/support.py"):
        assert not recipe.wants(path), path
    assert recipe.modules.index("virtio_ring") < recipe.modules.index("virtio_blk") < recipe.modules.index("kvm-amd")


def test_recipe_with_a_slip(tmp_path: Path) -> None:
    text = (layout.GUEST_IMAGES / "host/image.toml").read_text().replace("packages =", "package =")
    (tmp_path / "image.toml").write_text(text)
    with pytest.raises(BuildFailed, match="package, packages"):
        host_recipe(tmp_path / "image.toml")


@pytest.mark.build
def test_host_image_is_the_same_again(tmp_path: Path) -> None:
    """Another cache, another umask, another minute of the clock: the same root file system, byte by byte."""
    first = Store(tmp_path / "one")
    try:
        one = images.host_image(first)
    except (Unsupported, InfraFault) as error:
        pytest.skip(f"no packages here: {error.message}")
    second = Store(tmp_path / "two")
    shutil.copytree(first.root / "apt", second.root / "apt")
    old = os.umask(0o077)
    try:
        time.sleep(1.1)
        two = images.host_image(second)
    finally:
        os.umask(old)
    assert one.root_ext4 != two.root_ext4
    assert subprocess.run(["cmp", one.root_ext4, two.root_ext4], check=False).returncode == 0
    assert one.ssh_host_public_key != two.ssh_host_public_key
    subprocess.run(["/sbin/e2fsck", "-fn", one.root_ext4], check=True, capture_output=True)


@pytest.mark.build
def test_initial_ram_file_systems(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    try:
        host = images.host_initramfs(store, _bare(tmp_path))
        guest = images.linux_guest_initramfs(store, _bare(tmp_path))
    except (Unsupported, InfraFault) as error:
        pytest.skip(f"no packages or no compiler here: {error.message}")
    for path, wanted in ((host, b"apf/keys/authorized_keys"), (guest, b"bin/workload")):
        raw = gzip.decompress(path.read_bytes())
        assert wanted in raw and b"bin/busybox" in raw
    assert images.host_initramfs(store, _bare(tmp_path)) == host


def test_probe_guest_is_the_same_again(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("no compiler")
    one = images.probe_guest(Store(tmp_path / "one")).read_bytes()
    assert one[:4] == b"\x7fELF"
    assert images.probe_guest(Store(tmp_path / "two")).read_bytes() == one
