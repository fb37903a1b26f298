# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a token is written when the slot of the shared area has changed."""

from __future__ import annotations

import pytest

from harness.contract.host_program import AreaCase, AreaChange, Written
from harness.errors import ModelError
from harness.model.kernels import find_kernel
from harness.model.moved_area import predict_area


@pytest.mark.parametrize("change", AreaChange)
@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "noio-6.1", "nowait-7.3"])
def test_it_is_written_where_the_area_lies(kernel: str, change: AreaChange) -> None:
    found = predict_area(find_kernel(kernel), AreaCase(change))
    right = Written.REFUSED if change in (AreaChange.ROM, AreaChange.UNPLUGGED) else Written.THERE
    assert (found.outcome, found.faults) == (right, ())
    assert str(found).startswith(f"area {change}: the wake-all is {right} (")


def test_without_asynchronous_page_faults_there_is_no_token() -> None:
    with pytest.raises(ModelError):
        predict_area(find_kernel("sync-6.1"), AreaCase(AreaChange.KEPT))
