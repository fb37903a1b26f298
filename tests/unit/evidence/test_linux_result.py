# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest says, line by line, and what cannot be what it said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.capture import GuestFaults, LinuxResult, Touched
from harness.errors import CaptureDamaged
from harness.evidence.linux_result import decode

NONCE = 0xABC
WORKLOAD_C = Path(__file__).parents[3] / "guest-images/linux/workload.c"
TOUCH = """WORKLOAD touch 6.1.0-50-amd64 2 cpus
HYP 3 4
READY
TOUCHED 512 pages 0 wrong 2500 us
FAULTS 1 major 2 minor
HYP 30 4
END abc
"""
BOOT = "WORKLOAD boot 6.1.0 1 cpus\nHYP none\nEND abc\n"


def test_touch() -> None:
    assert decode(TOUCH, NONCE) == LinuxResult(
        "touch", "6.1.0-50-amd64", 2, ((3, 4), (30, 4)), Touched(512, 0, 2500), GuestFaults(1, 2)
    )


def test_boot_of_a_guest_without_the_row() -> None:
    assert decode(BOOT, NONCE) == LinuxResult("boot", "6.1.0", 1, (None,))


@pytest.mark.parametrize("line", TOUCH.splitlines())
def test_no_line_may_be_missing(line: str) -> None:
    left = "".join(other + "\n" for other in TOUCH.splitlines() if other != line)
    if line == "READY":
        assert decode(left, NONCE).touched
    else:
        with pytest.raises(CaptureDamaged):
            decode(left, NONCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("END abc", "END abd"),
        ("HYP 30 4", "HYP 30 x"),
        ("HYP 30 4", "HYP"),
        ("HYP 30 4", "HYP -1 4"),
        ("512 pages", "512 sheets"),
        ("0 wrong", "-1 wrong"),
        ("FAULTS 1", "FAULTS many"),
        ("FAULTS 1 major 2 minor", "FAULTS 1 major 2 minor\nFAULTS 1 major 2 minor"),
        ("READY", "ready"),
        ("2 cpus", "two cpus"),
        ("WORKLOAD touch", "HELLO touch"),
    ],
)
def test_damage(old: str, new: str) -> None:
    with pytest.raises(CaptureDamaged):
        decode(TOUCH.replace(old, new), NONCE)


@given(st.text())
def test_any_text(text: str) -> None:
    with pytest.raises(CaptureDamaged):
        decode(text, NONCE)


def test_every_line_of_the_workload_is_known() -> None:
    """result("..."): the first words of what the C program can say."""
    said = set(re.findall(r'result\("([A-Z]+)', WORKLOAD_C.read_text()))
    assert said == {"WORKLOAD", "HYP", "READY", "TOUCHED", "FAULTS", "END"}
