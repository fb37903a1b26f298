# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernel logs say of the kernel under test, and what they say of the machine below it: the host's, and the console
of a Linux guest, whose kernel is the other side of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract.capture import WITHOUT_MARKS, RunEnd
from harness.contract.host_stalls import FILE, HostStalls, Stall, weighed
from harness.contract.kernel_trouble import GUEST_WAITS_S, Blame, Trouble, all_trouble
from harness.contract.structure import from_json
from harness.errors import CaptureDamaged, UsageError
from harness.evidence.texts import mark_problems

LOG, GUEST_LOG = "host/dmesg.txt", "guest/console.txt"


@dataclass(frozen=True, slots=True)
class WeighedLog:
    """The findings of a log, in their order, each with what is recorded of its stall."""

    found: tuple[tuple[Trouble, Stall | None], ...] = ()
    whose: str = "host"

    @property
    def trouble(self) -> tuple[Trouble, ...]:
        """Without those of a host that was not let run."""
        return tuple(found for found, stall in self.found if stall is None or not stall.starved)

    @property
    def against_the_kernel(self) -> tuple[str, ...]:
        """The lines of these that tell against the kernel."""
        return tuple(found.line for found in self.trouble if found.blame is Blame.KERNEL)

    @property
    def starved(self) -> tuple[str, ...]:
        """What was said while the host was not let run: a sentence each."""
        return tuple(
            f"the {self.whose} says: {found.line}; {stall}"
            for found, stall in self.found
            if stall is not None and stall.starved
        )


def read_host_log(files: Mapping[str, bytes], end: RunEnd) -> WeighedLog:
    """Of the run that ended so; no log has nothing to say, but since format 5 there is one.

    :raise CaptureDamaged: host/stalls.json is not what it has to be, or of another run; or the log is.
    """
    stalls = _stalls(files, end.nonce)
    for problem in mark_problems(_text(files, LOG), end.nonce) if end.format > WITHOUT_MARKS else ():
        raise CaptureDamaged(problem)
    return WeighedLog(tuple(weighed(_said(files, LOG), stalls.stalls if stalls is not None else ())))


def read_guest_log(files: Mapping[str, bytes], nonce: int) -> WeighedLog:
    """The same of the console of a Linux guest; the probe guest's program is no kernel, and says nothing of the kind.

    :raise CaptureDamaged: see read_host_log().
    """
    stalls = _stalls(files, nonce)
    known = stalls.guest if stalls is not None and stalls.guest is not None else ()
    return WeighedLog(tuple(weighed(_said(files, GUEST_LOG), known, GUEST_WAITS_S)), "guest")


def _said(files: Mapping[str, bytes], name: str) -> tuple[Trouble, ...]:
    return all_trouble(_text(files, name).splitlines())


def _text(files: Mapping[str, bytes], name: str) -> str:
    return files.get(name, b"").decode(errors="replace")


def _stalls(files: Mapping[str, bytes], nonce: int) -> HostStalls | None:
    try:
        stalls = from_json(HostStalls, files[FILE]) if FILE in files else None
    except UsageError as exc:
        raise CaptureDamaged(f"{FILE}: {exc.message}") from exc
    if stalls is not None and stalls.nonce != nonce:
        raise CaptureDamaged(f"{FILE} carries nonce {stalls.nonce or 0:#x}, the plan {nonce:#x}: not of this run")
    return stalls
