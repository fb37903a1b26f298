# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory behind guest RAM that a plan asks for."""

from __future__ import annotations

from typing import assert_never

from harness.agent.ram.anon import AnonRam
from harness.agent.ram.file import FileRam
from harness.agent.ram.guest_ram import GuestRam
from harness.agent.ram.memfd import MemfdRam
from harness.contract.words import Backing


def ram_of(backing: Backing) -> GuestRam:
    """One arm for each word."""
    match backing:
        case Backing.ANON:
            return AnonRam()
        case Backing.MEMFD:
            return MemfdRam()
        case Backing.FILE:
            return FileRam()
        case _:
            assert_never(backing)
