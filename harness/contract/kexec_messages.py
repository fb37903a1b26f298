# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine says of itself to a run that wants to boot another kernel there by kexec
(docs/formats/reservation.md).

``agent.pyz kexec --check ADDRESS`` says a KexecOffer.  ``agent.pyz kexec`` says LOADED when the kernel is loaded, waits
for GO, says LEAVING, and is heard of no more.
"""

from __future__ import annotations

from dataclasses import dataclass

LOADED, GO, LEAVING = "loaded", "go", "leaving"


@dataclass(frozen=True, slots=True)
class KexecOffer:
    """Machine to run.

    :ivar refused: why it cannot be; empty: it can.
    :ivar boot: /proc/sys/kernel/random/boot_id.
    :ivar cmdline: /proc/cmdline.
    :ivar mac: of the interface that has the address at which the run has come; empty: refused, or not asked.
    :ivar address: that address with the length of its prefix ("192.0.2.7/24").
    :ivar gateway: of the default route through that interface; empty: it has none.
    """

    refused: str
    boot: str
    cmdline: str
    mac: str = ""
    address: str = ""
    gateway: str = ""
