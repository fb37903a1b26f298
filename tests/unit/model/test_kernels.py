# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels by name and by uname string, with the stable levels of B.18."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.model.kernel_changes import CHANGES, READ_RELEASES
from harness.model.kernels import (
    KERNEL_NAMES,
    KernelModel,
    Port,
    Variant,
    changes_between,
    find_kernel,
    kernel_for,
    parse_release,
)


def test_names() -> None:
    for name in KERNEL_NAMES:
        assert find_kernel(name).name == name
    assert find_kernel("noio").port is Port.V7
    assert find_kernel("nowait") is find_kernel("nowait-6.1")
    assert find_kernel("noio-6.1").port is Port.P2 and find_kernel("noio-6.1-p1").port is Port.P1
    assert [find_kernel(n).has_apf for n in ("sync-2010", "noio-v7", "nowait-6.12")] == [False, True, True]


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError) as error:
        find_kernel("nowait-7.0")
    for name in KERNEL_NAMES:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.1.192", (6, 1, 192)),
        ("6.1.0-56-cloud-amd64 (6.1.192)", (6, 1, 192)),
        ("6.1.0-56-cloud-amd64", (6, 1, 192)),
        ("6.1", (6, 1, 192)),
        ("Linux version 6.1.0-9-amd64 (someone) #1 SMP Debian 6.1.27-1", (6, 1, 27)),
        ("5.10.0-46-amd64 #1 SMP Debian 5.10.262-1 (2026)", (5, 10, 262)),
        ("6.12.64-apf", (6, 12, 64)),
        ("6.1.84-rt27", (6, 1, 84)),
        ("7.3-cloud-amd64 #1 SMP PREEMPT_DYNAMIC Debian 7.3~rc7-1~exp1 (2026-10-16)", (7, 3, 0)),
        ("7.3.0-rc7", (7, 3, 0)),
    ],
)
def test_release(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize(
    ("release", "quirk", "value"),
    [
        ("5.10.102", "token_never_zero", False), ("5.10.103", "token_never_zero", True),
        ("5.10.118", "lapic_disabled_defers", False), ("5.10.119", "lapic_disabled_defers", True),
        ("5.10.214", "always_flush_work", False), ("5.10.215", "always_flush_work", True),
        ("6.1.83", "always_flush_work", False), ("6.1.84", "always_flush_work", True),
        ("6.1.159", "cr0_pg_clears_queue", True), ("6.1.160", "cr0_pg_clears_queue", False),
        ("6.12.63", "cr0_pg_clears_queue", True), ("6.12.64", "cr0_pg_clears_queue", False),
        ("5.10.262", "token_with_paging_off", True), ("6.1.192", "token_with_paging_off", False),
        ("5.10.262", "do_poll", True), ("6.1.192", "do_poll", True), ("6.12.117", "do_poll", False),
        ("5.10.262", "halt_polls", True), ("6.1.192", "halt_polls", False),
        ("6.1.192", "zero_map", False), ("6.12.117", "zero_map", True),
        ("6.12.117", "en_needs_shared_area", False), ("7.2.12", "en_needs_shared_area", True),
        ("6.17.13", "cr0_pg_clears_queue", True),
        ("6.18.5", "cr0_pg_clears_queue", False), ("6.19.0", "cr0_pg_clears_queue", False),
        ("6.6.3", "do_poll", False), ("6.6.3", "zero_map", False), ("6.11.1", "zero_map", False),
        ("7.99.1", "zero_map", True), ("5.11.0", "token_never_zero", False), ("5.17.0", "token_never_zero", True),
        ("6.1.192", "prefetch_keeps_error_code", False), ("6.12.117", "prefetch_keeps_error_code", True),
        ("5.10.262", "repeated_fault_event", "kvm_async_pf_doublefault"),
        ("6.1.192", "repeated_fault_event", "kvm_async_pf_repeated_fault"),
    ],
)  # fmt: skip
def test_stable_levels(release: str, quirk: str, value: object) -> None:
    assert getattr(kernel_for(Variant.NOWAIT, release), quirk) == value


def test_variant_and_release() -> None:
    assert kernel_for("nowait", "6.1.192") == find_kernel("nowait-6.1")
    assert kernel_for("noio", "6.1.192") == find_kernel("noio-6.1")
    assert kernel_for("noio", "6.1.192", port=Port.P1) == find_kernel("noio-6.1-p1")
    assert kernel_for("noio", "6.1.100").cr0_pg_clears_queue
    assert kernel_for("noio", "7.3.4") == find_kernel("noio-7.3") and find_kernel("noio-7.3").port is Port.P2
    assert kernel_for("sync", "6.1.192") == find_kernel("sync-6.1")
    assert kernel_for("sync", "2.6.37") == find_kernel("sync-2010")
    assert kernel_for("noio", "2.6.36") == find_kernel("noio-v7")


@pytest.mark.parametrize(
    ("variant", "release", "message"),
    [
        ("nowait", "5.4.1", "Linux 5.4 is not described"),
        ("noio", "7.2.4", "no noio port to 7.2"),
        ("nowait", "2.6.38", "Linux 2.6 is not described"),
        ("noio", "5.10.262", "no noio port to 5.10"),
        ("merged", "6.1.192", "unknown variant 'merged'"),
        ("nowait", "linux-next", "no kernel release in 'linux-next'"),
    ],
)
def test_bad_requests(variant: str, release: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        kernel_for(variant, release)


def test_a_stable_level_has_what_its_series_and_its_backports_bring() -> None:
    change = next(c for c in CHANGES if c.field == "always_flush_work")
    for release, there in (((5, 10, 214), False), ((5, 10, 215), True), ((5, 15, 999), False), ((6, 9, 0), True)):
        assert change.in_release(release) is there


def test_the_history_is_in_order_and_each_entry_changes_something() -> None:
    """A later value of the same field must come later in the table, because the last one wins."""
    assert [c.since for c in CHANGES] == sorted(c.since for c in CHANGES)
    value: dict[str, object] = {f.name: f.default for f in fields(KernelModel)}
    for change in CHANGES:
        assert value[change.field] != change.value, change
        value[change.field] = change.value


def test_a_difference_between_two_trees_read_is_dated_between_them() -> None:
    for change in CHANGES:
        without, with_it = change.read
        assert without in READ_RELEASES and with_it in READ_RELEASES and without < with_it
        assert not change.in_release(without) or without in change.backports or without[:2] in {
            b[:2] for b in change.backports
        }, change  # fmt: skip
        assert change.in_release(with_it), change
        assert change.commit or "commit" in change.open, "without a commit it must be said that none is known"


@given(st.tuples(st.integers(5, 9), st.integers(0, 30), st.integers(0, 400)))
def test_every_release_from_5_10_has_an_answer_that_never_goes_back(release: tuple[int, int, int]) -> None:
    """Whatever a release has, the next mainline release has too."""
    if release[:2] < (5, 10):
        return
    now, after = (
        kernel_for("nowait", ".".join(map(str, r))) for r in (release, (release[0], release[1] + 1, release[2]))
    )
    backported = {c.field for c in CHANGES if c.backports}  # which the next release may lack
    brought = {c.field for c in CHANGES if c.in_release(release)} - backported
    assert all(getattr(now, name) == getattr(after, name) for name in brought)


def test_what_lies_between_two_kernels() -> None:
    old, new = kernel_for("nowait", "6.1.192"), kernel_for("nowait", "6.12.117")
    assert [c.since for c in changes_between(old, new, "do_poll")] == [(6, 6)]
    assert changes_between(old, new, "do_poll") == changes_between(new, old, "do_poll")
    assert changes_between(old, new, "cr0_pg_clears_queue") == ()  # both levels have the backport
    assert changes_between(kernel_for("nowait", "6.1.100"), new, "cr0_pg_clears_queue")
