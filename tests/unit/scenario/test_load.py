# SPDX-License-Identifier: GPL-2.0-or-later
"""Every problem of a scenario file is named once, with file and key; nothing wrong is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract.plan import Backing, GuestKind, PageStart, SwapKind
from harness.errors import ScenarioError
from harness.scenario.load import load_all, load_text

SCENARIOS = Path(__file__).parents[2] / "scenarios"
GOOD = """
id = "X1"
title = "a title"
[pages.f]
groups = 4
[[steps]]
touch = "f"
"""


def test_a_minimal_file_has_the_documented_defaults() -> None:
    (s,) = load_text("x.toml", GOOD)
    assert s.guest.kind is GuestKind.PROBE
    assert s.memory.backing is Backing.ANON
    assert s.pages["f"].start is PageStart.SWAPPED
    assert s.steps[0].touch == "f"


@pytest.mark.parametrize(
    ("swap", "kind"),
    [
        ("", SwapKind.GATED),
        ("delay_ms = 300", SwapKind.DELAY),
        ('delay_ms = 300\nrelease = "after"', SwapKind.GATED),
        ('release = "np:2"', SwapKind.GATED),
        ('kind = "dm-delay"', SwapKind.DELAY),
    ],
)
def test_a_delay_and_nothing_to_wait_for_is_a_device_that_delays(swap: str, kind: SwapKind) -> None:
    (s,) = load_text("x.toml", GOOD + "[swap]\n" + swap)
    assert s.swap.kind is kind


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("id = 3", ["expected str, got int 3 at $.id", "required key 'title' is missing"]),
        (GOOD + "colour = 1", ["unknown key 'colour' at $.steps[0]"]),
        ('id="a"\ntitle="b"\n[swap]\npage_cluster="3"', ["expected int, got str '3' at $.swap.page_cluster"]),
        (
            'id="a"\ntitle="b"\n[swap]\nkind="floppy"',
            ["at $.swap.kind", "'floppy' is not one of none, gated, userfaultfd, dm-delay, zram"],
        ),
        ('id="a"\ntitle="b"\n[swap]\nrotational=1', ["expected bool, got int 1 at $.swap.rotational"]),
        ("id = ", ["not TOML"]),
        (GOOD.replace('touch = "f"', 'touch = "g"'), ["$.steps[0].touch", "no page set 'g'", "there are: f"]),
        (GOOD.replace('touch = "f"', 'touch = "f[4]"'), ["$.steps[0].touch", "the set has 4 pages"]),
        (GOOD.replace('touch = "f"', ""), ["$.steps[0]", "exactly one of"]),
        (GOOD + "pause = true", ["exactly one of", "touch and pause"]),
        (GOOD + "vcpu = 1", ["$.steps[0].vcpu", "the guest has 1"]),
        (GOOD + "cpl = 1", ["$.steps[0].cpl"]),
        (GOOD + "shadow = true", ["$.steps[0].shadow", "cpl = 0"]),
        (GOOD + "gif = false", ["$.steps[0].gif", "interrupts = false"]),
        (GOOD + "[[steps]]\npause = true\ntpr = true", ["$.steps[1].tpr", "interrupts = false"]),
        (GOOD + "tpr = true", ["$.steps[0].tpr", "nothing would look at it"]),
        (GOOD + "in_service = true", ["$.steps[0].in_service", "nothing would look at it"]),
        (GOOD + "[[steps]]\npause = true\ntpr = true\ninterrupts = false\nin_service = true", ["$.steps[1].tpr"]),
        (GOOD + "[[steps]]\npause = true\nin_service = true\n[apf]\nvector = 0x2f", ["$.steps[1].interrupts", "0x22"]),
        (
            GOOD + '[[steps]]\nwrmsr = "INT"\nvalue = 0x2f\n[[steps]]\npause = true\nin_service = true',
            ["$.steps[1].value", "0x22", "0x2f"],
        ),
        (GOOD + "[[steps]]\npause = true\nin_service = true\n[apf]\nvector = 0xfe", ["$.apf.vector", "in service"]),
        (GOOD + '[[steps]]\npause = true\nin_service = true\n[[steps]]\nlapic = "off"', ["$.steps[1].in_service"]),
        (GOOD.replace("groups = 4", 'groups = 4\nstart = "dropped"'), ["$.pages.f.start", "memory.backing = file"]),
        (GOOD.replace("groups = 4", "groups = 4\nrun = 100"), ["$.pages.f.stride", "groups would overlap"]),
        (GOOD.replace("groups = 4", "groups = 4000"), ["$.guest.memory_mib", "must stay free"]),
        (GOOD + '[guest]\nkind="linux"\nworkload="touch"', ["for the probe guest", "workload_pages"]),
        (GOOD + '[guest]\nkind="linux"\nworkload="nmi"\nworkload_pages=8', ["guest.vcpus: the workload nmi needs two"]),
        ('id="a"\ntitle="b"\n[swap]\nkind="none"\n[pages.f]\ngroups=1\n[[steps]]\ntouch="f"', ["needs a swap device"]),
        (GOOD + '[kernel_params]\nfoo="1"', ["$.kernel_params.'foo'", "module.parameter"]),
        (GOOD + '[[timed]]\nat_ms=1\nhost=[{do="explode"}]', ["$.timed[0].host", "explode"]),
    ],
)
def test_bad_input_is_named_with_its_key(text: str, messages: list[str]) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_text("bad.toml", text)
    for message in messages:
        assert message in str(caught.value)
    assert "bad.toml: " in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["gif = false", "shadow = true", "no_paging = true", "tpr = true"])
def test_a_key_that_nothing_looks_at_is_refused_once(key: str) -> None:
    """Beside "page_fault has no gif" there was "set cpl = 0", which it has not either."""
    with pytest.raises(ScenarioError) as caught:
        load_text("bad.toml", GOOD + f"[[steps]]\npage_fault = true\n{key}")
    assert str(caught.value).count("$.steps[1]") == 1
    assert "nothing would look at it" in str(caught.value)


def test_all_problems_of_all_files_are_reported_together() -> None:
    with pytest.raises(ScenarioError) as caught:
        load_all([("a.toml", "id = 1"), ("b.toml", GOOD + "cpl = 2\nthen = 'never'")])
    text = str(caught.value)
    assert "a.toml: " in text and "b.toml: $.steps[0].cpl" in text and "b.toml: $.steps[0].then" in text


def test_two_scenarios_with_one_id_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"is also the id of a\.toml"):
        load_all([("a.toml", GOOD), ("b.toml", GOOD)])


def test_the_scenarios_of_the_repository_load() -> None:
    files = sorted(SCENARIOS.glob("*.toml"))
    loaded = load_all((f.name, f.read_text()) for f in files)
    assert len(loaded) >= len(files) > 0
    assert all(s.why and s.catalogue for s in loaded), "each says why it exists and which catalogue row it is"
