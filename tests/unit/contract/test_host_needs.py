# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan needs of a host: each thing that is taken away is missed by exactly the plans that need it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.capture import Facts, HostFacts
from harness.contract.host_needs import NO_DISK, QEMU_MIB, HostOffers, hangs_on_version, lacks, without_gate
from harness.contract.plan import Guest, GuestKind, Memory, Plan, Swap, SwapKind
from harness.contract.structure import from_json, to_json
from harness.contract.words import Backing

CAPTURE = Path(__file__).parents[2] / "data/captures-7.3/S29/facts.json"


@pytest.fixture
def offers() -> HostOffers:
    """What a real virtual host said, with all that there can be."""
    host = from_json(Facts, CAPTURE.read_text()).host
    full = replace(host, nbd=True, dm_delay=True, zram=True, mkfs_ext4=True)
    return HostOffers(full, "QEMU 7.2", userfaultfd=True, memory_mib=1800, disk="/dev/vdb")


def plan(kind: SwapKind = SwapKind.GATED, **more: object) -> Plan:
    fields: dict[str, object] = {
        "scenario": "S1", "title": "t", "nonce": 1, "guest": Guest(), "memory": Memory(), "swap": Swap(kind=kind),
        "pages": (), "items": (), **more,
    }  # fmt: skip
    return Plan(**fields)  # type: ignore[arg-type]


def words(wanted: Plan, offered: HostOffers) -> list[str]:
    return [lack.what for lack in lacks(wanted, offered)]


KINDS = [SwapKind.GATED, SwapKind.DELAY, SwapKind.ZRAM, SwapKind.USERFAULT, SwapKind.NONE]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_host_lacks_nothing(kind: SwapKind, offers: HostOffers) -> None:
    assert words(plan(kind), offers) == []


@pytest.mark.parametrize(
    ("taken", "kinds", "told"),
    [
        ({"kvm_device": False}, KINDS, "/dev/kvm"),
        ({"cgroup_memory": False}, KINDS, "cgroup v2"),
        ({"tracefs": ""}, KINDS, "tracefs"),
        ({"kprobe_events": False}, KINDS, "kprobe events"),
        ({"dm_delay": False}, [SwapKind.DELAY], "no dm-delay"),
        ({"zram": False}, [SwapKind.ZRAM], "no zram"),
        ({"swap_in_use": ("/dev/sda2",)}, [SwapKind.ZRAM], "/dev/sda2"),
    ],
)
def test_what_is_taken_away_is_missed_where_it_is_needed(
    taken: dict[str, object], kinds: list[SwapKind], told: str, offers: HostOffers
) -> None:
    less = replace(offers, host=replace(offers.host, **taken))  # type: ignore[arg-type]
    for kind in KINDS:
        found = words(plan(kind), less)
        assert [told in text for text in found] == ([True] if kind in kinds else []), kind


def test_a_remedy_is_a_command(offers: HostOffers) -> None:
    bare = HostOffers(
        replace(offers.host, kvm_device=False, cgroup_memory=False, tracefs="", nbd=False, dm_delay=False,
                mkfs_ext4=False),
        "", userfaultfd=False, memory_mib=1800,
    )  # fmt: skip
    wanted = replace(plan(SwapKind.DELAY), memory=Memory(backing=Backing.FILE))
    assert [lack.remedy.split(" ")[0] for lack in lacks(wanted, bare)] == [
        "modprobe", "boot", "mount", "apt-get", "modprobe", "apt-get",
    ]  # fmt: skip


def test_without_nbd_dm_delay_does_what_it_can(offers: HostOffers) -> None:
    less = replace(offers, host=replace(offers.host, nbd=False))
    assert words(plan(), less) == []
    held = plan(SwapKind.GATED, swap=Swap(error=("f[0]",)))
    assert without_gate(held) is None
    assert ["no nbd" in text for text in words(held, less)] == [True]
    assert words(plan(), replace(less, disk="")) == [NO_DISK]
    plain = without_gate(plan())
    assert plain is not None and plain.swap.kind is SwapKind.DELAY


def test_memory_is_refused_with_the_figures(offers: HostOffers) -> None:
    wanted = plan(guest=Guest(memory_mib=1000))
    assert words(wanted, replace(offers, memory_mib=1000 + QEMU_MIB)) == []
    (text,) = words(wanted, replace(offers, memory_mib=1000 + QEMU_MIB - 1))
    assert f"wants {1000 + QEMU_MIB} MiB" in text and f"{1000 + QEMU_MIB - 1} MiB available" in text
    (text,) = words(wanted, replace(offers, memory_limit_mib=500))
    assert "of which 500 MiB may be used" in text


def test_a_host_program_needs_no_qemu(offers: HostOffers) -> None:
    program = plan(guest=Guest(kind=GuestKind.HOST_PROGRAM, workload="x"))
    assert words(program, replace(offers, qemu="", memory_mib=0)) == []


def test_offers_cross_the_border(offers: HostOffers) -> None:
    assert from_json(HostOffers, to_json(offers)) == offers
    assert isinstance(offers.host, HostFacts)


SEVERAL = [{"machine": "q35", "cpu_pm": True}, {"irqchip": "off", "cpu": "host,-kvm-asyncpf-int"}]


@pytest.mark.parametrize("guest", SEVERAL)
def test_what_an_old_qemu_cannot_do_with_several_vcpus(guest: dict[str, object], offers: HostOffers) -> None:
    several = plan(guest=Guest(vcpus=2, **guest))  # type: ignore[arg-type]
    old = replace(offers, qemu="QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)")
    (told,) = words(several, old)
    assert "QEMU 7.2" in told and hangs_on_version(several)
    assert words(several, replace(offers, qemu="QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)")) == []
    alone = plan(guest=Guest(**guest))  # type: ignore[arg-type]
    assert words(alone, old) == [] and not hangs_on_version(alone)
