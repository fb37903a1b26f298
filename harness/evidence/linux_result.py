# SPDX-License-Identifier: GPL-2.0-or-later
"""guest/result.txt -> LinuxResult: the lines that guest-images/linux/workload.c writes to its port."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.contract.capture import GuestFaults, LinuxResult, Touched
from harness.errors import CaptureDamaged

RESULT_PORT = 0xE9
"""guest-images/linux/workload.c"""
_N = r"(\d{1,19})"
_WORKLOAD = re.compile(rf"WORKLOAD (\S+) (\S+) {_N} cpus")
_HYP = re.compile(rf"HYP( none|(?: {_N})+)")
_TOUCHED = re.compile(rf"TOUCHED {_N} pages {_N} wrong {_N} us")
_FAULTS = re.compile(rf"FAULTS {_N} major {_N} minor")


def decode(text: str, nonce: int) -> LinuxResult:
    """The whole file.  The first line names the workload, the last carries the nonce of the run.

    :raise CaptureDamaged: no END of this run, a line that the workload does not write, one twice, or one that is
        missing of those that each workload writes.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines or lines[-1] != f"END {nonce:x}":
        raise CaptureDamaged(f"guest/result.txt does not end with END {nonce:x}: no result")
    first = _WORKLOAD.fullmatch(lines[0])
    if first is None:
        raise CaptureDamaged(f"guest/result.txt: {lines[0]!r} does not name the workload")
    rest = lines[1:-1]
    hyp = tuple(_hyp(rest))
    if not hyp:
        raise CaptureDamaged("guest/result.txt: the guest reported no HYP row, not even that it has none")
    touched, faults = _one(_TOUCHED, rest), _one(_FAULTS, rest)
    known = ("READY", "HYP ", "TOUCHED ", "FAULTS ")
    for line in rest:
        if not line.startswith(known):
            raise CaptureDamaged(f"guest/result.txt: {line!r}: no such line is known")
    if first[1] == "touch" and (touched is None or faults is None or len(hyp) != 2):
        raise CaptureDamaged("guest/result.txt: the workload touch says TOUCHED and FAULTS once and HYP twice")
    return LinuxResult(
        workload=first[1],
        release=first[2],
        cpus=int(first[3]),
        hyp=hyp,
        touched=Touched(*touched) if touched else None,
        faults=GuestFaults(*faults) if faults else None,
    )


def _hyp(lines: list[str]) -> Iterator[tuple[int, ...] | None]:
    for line in lines:
        if line.startswith("HYP"):
            match = _HYP.fullmatch(line)
            if match is None:
                raise CaptureDamaged(f"guest/result.txt: {line!r}: not a row of counts")
            yield None if match[1] == " none" else tuple(int(n) for n in match[1].split())


def _one(pattern: re.Pattern[str], lines: list[str]) -> list[int] | None:
    """The numbers of the one line that begins with the pattern's first word; None where there is none."""
    word = pattern.pattern.split()[0]
    found = [line for line in lines if line.startswith(word)]
    if not found:
        return None
    match = pattern.fullmatch(found[0])
    if len(found) > 1 or match is None:
        raise CaptureDamaged(f"guest/result.txt: {found[-1]!r}: twice, or in a form that cannot be read")
    return [int(n) for n in match.groups()]
