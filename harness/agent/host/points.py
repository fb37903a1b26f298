# SPDX-License-Identifier: GPL-2.0-or-later
"""Which points of a kernel with mutants (kernels/mutate.toml) a run came by; nothing on any other kernel."""

from __future__ import annotations

import os

REACHED = "/sys/module/kvm/parameters/apf_reached"
CAPTURED = "host/apf_reached.txt"


def forget_points() -> None:
    """Begin anew.  Nothing to undo: the kernel only notes."""
    if os.path.exists(REACHED):
        with open(REACHED, "w") as file:
            file.write("0")


def reached_points() -> str:
    """Hexadecimal digits, four points each, lowest first; empty where the kernel has no points."""
    if not os.path.exists(REACHED):
        return ""
    with open(REACHED) as file:
        return file.read()
