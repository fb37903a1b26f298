# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make` would call, by its own word."""

from __future__ import annotations

import subprocess

import pytest

from tests.house.test_house import ROOT
from tests.unit.waiting import HANG_S


@pytest.mark.parametrize(
    ("kernels", "wanted"),
    [
        ("debian-6.1", "run S23 --kernel debian-6.1 "),
        ("debian-6.1 noio-6.1", 'compare "$1" "$2" S23 '),
        ("debian-6.1 noio-6.1 /some/tree", "run S23 --kernel debian-6.1 --kernel noio-6.1 --kernel /some/tree "),
    ],
)
def test_each_kernel_of_e2e_is_an_argument_of_its_own(kernels: str, wanted: str) -> None:
    done = subprocess.run(
        ["make", "-n", "e2e", f"KERNELS={kernels}", "SCENARIOS=S23"],
        cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=True,
    )  # fmt: skip
    assert f"set -- {kernels};" in done.stdout
    assert wanted in done.stdout
