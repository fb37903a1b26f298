# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels by name and by uname string, with the stable levels of B.18."""

from __future__ import annotations

import pytest

from harness.errors import ModelError
from harness.model.kernels import KERNEL_NAMES, Port, Variant, find_kernel, kernel_for, parse_release


def test_names() -> None:
    for name in KERNEL_NAMES:
        assert find_kernel(name).name == name
    assert find_kernel("noio").port is Port.V7
    assert find_kernel("nowait") is find_kernel("nowait-6.1")
    assert find_kernel("noio-6.1").port is Port.P2 and find_kernel("noio-6.1-p1").port is Port.P1
    assert [find_kernel(n).has_apf for n in ("sync-2010", "noio-v7", "nowait-6.12")] == [False, True, True]
    assert [find_kernel(n).foll_minor for n in ("sync-6.1", "noio-6.1", "nowait-6.12")] == [False, True, False]


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
        ("6.12.114", "guest_nmi_leaves_flags", False), ("6.12.115", "guest_nmi_leaves_flags", True),
        ("5.10.262", "token_with_paging_off", True), ("6.1.192", "token_with_paging_off", False),
        ("5.10.262", "do_poll", True), ("6.1.192", "do_poll", True), ("6.12.117", "do_poll", False),
        ("5.10.262", "halt_polls", True), ("6.1.192", "halt_polls", False),
        ("6.1.192", "zero_map", False), ("6.12.117", "zero_map", True),
        ("6.1.192", "work_holds_mm", True), ("6.12.117", "work_holds_mm", False),
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
    assert kernel_for("sync", "6.1.192") == find_kernel("sync-6.1")
    assert kernel_for("sync", "2.6.37") == find_kernel("sync-2010")
    assert kernel_for("noio", "2.6.36") == find_kernel("noio-v7")


@pytest.mark.parametrize(
    ("variant", "release", "message"),
    [
        ("nowait", "6.6.1", "Linux 6.6 is not described"),
        ("nowait", "2.6.38", "Linux 2.6 is not described"),
        ("noio", "5.10.262", "no noio port to 5.10"),
        ("merged", "6.1.192", "unknown variant 'merged'"),
        ("nowait", "linux-next", "no kernel release in 'linux-next'"),
    ],
)
def test_bad_requests(variant: str, release: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        kernel_for(variant, release)
