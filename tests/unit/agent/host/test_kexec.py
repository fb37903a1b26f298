# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine says of booting another kernel; that it is done is for tests/unit/hosts/test_kexec.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.agent.host.kexec import offer


def test_this_machine_is_named_whatever_it_can_do() -> None:
    told = offer("")
    assert told.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert told.cmdline == Path("/proc/cmdline").read_text().strip()
    assert (told.mac, told.address) == ("", "")
    if not Path("/sys/kernel/kexec_loaded").exists():
        assert "has no kexec" in told.refused


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.254", "::1", "nowhere"])
def test_an_address_that_another_kernel_could_not_have_is_refused(address: str) -> None:
    """Loopback is no network card; the others are no address of this machine."""
    told = offer(address)
    assert told.refused and (told.mac, told.address, told.gateway) == ("", "", "")
