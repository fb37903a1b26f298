# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest that is not as most guests are comes by a missing page."""

from __future__ import annotations

import pytest

from harness.contract.host_program import Found, GuestCase, OddGuest
from harness.errors import ModelError
from harness.model.kernels import find_kernel
from harness.model.odd_guest import predict_guest

WAITED = (OddGuest.ROM_PAGE, OddGuest.PRE_FAULT, OddGuest.ASKED_TWICE)
HALTED = (OddGuest.SMM, OddGuest.SMM_TAKEN, OddGuest.AREA_FORBIDDEN)


@pytest.mark.parametrize("kind", OddGuest)
@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "noio-6.1", "nowait-6.12", "nowait-7.3"])
def test_only_a_guest_that_touches_memory_of_its_own_is_told(kernel: str, kind: OddGuest) -> None:
    found = predict_guest(find_kernel(kernel), GuestCase(kind))
    if kind is OddGuest.POISONED:
        assert found.outcome is Found.BUS_ERROR
    elif kind is OddGuest.PAGING_ON:
        assert found.outcome is (Found.WAITED if kernel.endswith("5.10") else Found.AT_HAND)
    elif kind is OddGuest.ZERO_PAGE:
        assert found.outcome is Found.AT_HAND
    elif kind is OddGuest.HOLE:
        assert found.outcome is Found.FAILED
    elif kind is OddGuest.ROM_WRITTEN:
        assert found.outcome is Found.FOR_VMM
    elif kind is OddGuest.PRE_FAULT and kernel.endswith(("5.10", "-6.1")):
        assert found.outcome is Found.UNKNOWN
    else:
        assert found.outcome is (Found.WAITED if kind in WAITED else Found.HALTED if kind in HALTED else Found.TOLD)
    assert str(found).startswith(f"guest {kind}: the page is {found.outcome} (")


def test_without_asynchronous_page_faults_there_is_no_token() -> None:
    with pytest.raises(ModelError):
        predict_guest(find_kernel("sync-6.1"), GuestCase(OddGuest.RING1))
