# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine that is booted by kexec is told; that it boots, and comes back: test_kexec.py."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.kexec_messages import KexecOffer
from harness.errors import InfraFault
from harness.hosts.kexec_boot import command_line, settings

OFFER = KexecOffer("", "b", "ro", "52:54:00:12:34:56", "192.0.2.7/24", "192.0.2.1")


def test_what_the_machine_says_of_its_hardware_stays_and_what_is_about_its_system_goes() -> None:
    own = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet console=ttyS0 rd.luks.uuid=1 panic=-1 tsc=reliable resume=/dev/sda2"
    assert command_line(own, "slab_nomerge") == (
        "console=ttyS0 tsc=reliable panic=10 oops=panic loglevel=5 slab_nomerge"
    )


@given(st.lists(st.sampled_from(["root=/dev/sda1", "ro", "rw", "init=/bin/sh", "panic=0", "panic", "systemd.unit=x"])))
def test_no_word_can_name_a_disk_or_forbid_the_reset(words: list[str]) -> None:
    assert command_line(" ".join(words), "") == "panic=10 oops=panic loglevel=5"


def test_how_it_is_reached() -> None:
    told = gzip.decompress(settings(OFFER, "2222", 10))
    for line in (b"mac 52:54:00:12:34:56\n", b"address 192.0.2.7/24\n", b"gateway 192.0.2.1\n", b"port 2222\n"):
        assert line in told
    assert b"silence 120\nlimit 1500\n" in told
    assert b"gateway \n" in gzip.decompress(settings(replace(OFFER, gateway=""), "22", 1))


@pytest.mark.parametrize(
    ("offer", "port"),
    [
        (replace(OFFER, address="192.0.2.7/24; reboot"), "22"),
        (replace(OFFER, address=""), "22"),
        (replace(OFFER, gateway="192.0.2.1\nport 1"), "22"),
        (replace(OFFER, mac="52:54:00:12:34:5g"), "22"),
        (replace(OFFER, mac=OFFER.mac + "\nlimit 0"), "22"),
        (OFFER, "22\n"  "limit 0"),
        (OFFER, "0"),
        (OFFER, "65536"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(offer: KexecOffer, port: str) -> None:
    with pytest.raises(InfraFault, match="address"):
        settings(offer, port, 10)
