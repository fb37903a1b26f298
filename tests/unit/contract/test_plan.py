# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan survives its JSON, and a damaged one is refused with the path of the damage."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import plan as p
from harness.errors import UsageError

items = st.builds(p.Item, index=st.integers(0, 999), op=st.sampled_from(p.Op), access=st.sampled_from(p.Access))
plans = st.builds(
    p.Plan,
    scenario=st.text(),
    title=st.text(),
    nonce=st.integers(0, 2**64 - 1),
    guest=st.builds(p.Guest, kind=st.sampled_from(p.GuestKind)),
    memory=st.builds(p.Memory, backing=st.sampled_from(p.Backing)),
    swap=st.builds(p.Swap, kind=st.sampled_from(p.SwapKind)),
    pages=st.lists(st.builds(p.Page, start=st.sampled_from(p.PageStart))).map(tuple),
    items=st.lists(items).map(tuple),
    host_actions=st.just(((p.HostAction(p.HostWord.FREEZE),), (p.HostAction(p.HostWord.SLEEP, 3),))),
    timed=st.just((p.TimedAction(1, (p.HostAction(p.HostWord.THAW),)),)),
    kernel_params=st.just((("kvm.x", "1"),)),
    kernel_params_at_go=st.just((("kvm.y", "2"),)),
)


@given(plans)
def test_round_trip(plan: p.Plan) -> None:
    assert p.from_json(p.Plan, p.to_json(plan)) == plan


def _raw() -> dict[str, Any]:
    plan = p.Plan("s", "t", 1, p.Guest(), p.Memory(), p.Swap(), (), (p.Item(0, p.Op.TOUCH),))
    raw: dict[str, Any] = json.loads(p.to_json(plan))
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nonce",), "1", r"\$\.nonce: expected int"),
        (("items", 0, "op"), "jump", r"\$\.items\[0\]\.op: 'jump' is not one of touch"),
        (("host_actions",), [[{"do": "set fire"}]], r"\$\.host_actions\[0\]\[0\]\.do: 'set fire' is not one of freeze"),
        (("guest", "vcpus"), True, r"\$\.guest\.vcpus: expected int"),
        (("guest",), 3, r"\$\.guest: expected an object"),
        (("items",), {}, r"\$\.items: expected a list"),
        (("surprise",), 1, r"\$\.surprise: unknown key"),
        (("kernel_params",), [["a"]], r"\$\.kernel_params\[0\]: expected 2 elements"),
    ],
)
def test_damage_is_refused_with_its_path(path: tuple[str | int, ...], value: object, message: str) -> None:
    raw: Any = _raw()
    where = raw
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(UsageError, match=message):
        p.from_json(p.Plan, json.dumps(raw))


def test_a_missing_key_and_no_json() -> None:
    raw = _raw()
    del raw["swap"]
    with pytest.raises(UsageError, match=r"\$\.swap: missing"):
        p.from_json(p.Plan, json.dumps(raw))
    with pytest.raises(UsageError, match="not JSON"):
        p.from_json(p.Plan, "{")


def test_areas_that_writes_of_en_name_besides_the_vcpus_own() -> None:
    en, own = 0x4B564D02, p.SHARED_GPA
    values = (own + 0x40 | 9, own + 0x80 | 11, own + 0xC0 | 1, own + 0x100 | 0x19, own | 9, 0x4000_0000 | 9, 0)
    items = tuple(p.Item(n, p.Op.WRMSR, msr=en, value=value) for n, value in enumerate(values))
    plain = p.Plan("s", "t", 1, p.Guest(), p.Memory(), p.Swap(), (), ())
    plan = replace(plain, items=(*items, p.Item(9, p.Op.WRMSR, msr=en + 4, value=own + 0x140 | 9)))
    assert p.further_areas(plan) == (own + 0x40, own + 0x80), "neither single bits, nor reserved ones, nor a hole"
    moved = replace(plan, items=(), guest=replace(plan.guest, apf=replace(plan.guest.apf, en_gpa=p.POOL_GPA)))
    assert p.further_areas(moved) == (p.POOL_GPA,)


@pytest.mark.parametrize(
    ("vcpus", "cores", "ids"),
    [
        (4, 0, (0, 1, 2, 3)),
        (4, 3, (0, 1, 2, 4)),
        (5, 3, (0, 1, 2, 4, 5)),
        (7, 3, (0, 1, 2, 4, 5, 6, 8)),
        (4, 1, (0, 1, 2, 3)),
        (3, 16, (0, 1, 2)),
        (12, 5, (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17)),
    ],
)
def test_the_apic_ids_of_a_socket_begin_at_a_power_of_two(vcpus: int, cores: int, ids: tuple[int, ...]) -> None:
    """guest_images/test_probe.py has the LAPICs of QEMU say so of seven."""
    assert p.vcpu_ids(p.Guest(vcpus=vcpus, cores=cores)) == ids


@pytest.mark.parametrize(
    ("cmdline", "online"),
    [
        ("", 3),
        ("maxcpus=1", 1),
        ("quiet nr_cpus=2", 2),
        ("maxcpus=8", 3),
        ("maxcpus=0", 1),
        ("nosmp", 1),
        ("nr_cpus", 3),
    ],
)
def test_cpus_that_a_linux_guest_brings_up(cmdline: str, online: int) -> None:
    assert p.online_cpus(p.Guest(kind=p.GuestKind.LINUX, vcpus=3, cmdline=cmdline)) == online
