# SPDX-License-Identifier: GPL-2.0-or-later
"""Netlink attributes; the kernel's own family list answers the same code that asks it for nbd's number."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.host import nbd


@given(st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=50)), max_size=10))
def test_attributes_there_and_back(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(nbd._attribute(kind, payload) for kind, payload in items)
    assert len(data) % 4 == 0
    assert list(nbd.attributes(data)) == items


def test_the_controller_answers_for_itself() -> None:
    """Every kernel has the family "nlctrl", number 16 (include/uapi/linux/genetlink.h)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as netlink:
        netlink.bind((0, 0))
        answer = dict(nbd.attributes(nbd._call(netlink, 16, 3, nbd._attribute(2, b"nlctrl\0"))))
    assert answer[1][:2] == (16).to_bytes(2, "little")


def test_a_kernel_without_nbd_says_so() -> None:
    if nbd.has_nbd():
        pytest.skip("this kernel has nbd")
    with pytest.raises(FileNotFoundError):
        nbd.disconnect(0)
    assert nbd.owner(0) == 0
