# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine under the host, or the guest's own kernel, did wrong in a run, and what is left of its findings."""

from __future__ import annotations

from harness.contract.kernel_trouble import Blame
from harness.judge.blame import first_words, in_order
from harness.judge.protocol_check import Checked
from harness.judge.verdict_types import Finding
from harness.status import Status

_WHOSE = {
    Blame.MACHINE: "the host's machine did not do its part",
    Blame.GUEST: "a known fault of the guest's own kernel, which proves nothing of the host's",
}
_ADVICE = {
    "refused-out": "QEMU's TCG refuses it once the VMM has written a vCPU's state, as it does for sync and nmi; leave "
    "these words out, or take a host whose processor has svm or vmx",
}
"""By kind of trouble: what whoever meets it can do."""


def by_machine(checked: Checked, findings: tuple[Finding, ...]) -> tuple[Status, str, tuple[Finding, ...]] | None:
    """Status, reason and findings where such trouble explains what was found; None: there is none, or it does not.

    What the events before an emulated processor's own fault prove remains the kernel's.
    """
    trouble = checked.host_trouble
    blamed = {t.blame for t in trouble}
    excused = bool(blamed) and Blame.KERNEL not in blamed
    if blamed == {Blame.GUEST}:  # what it has seen of its host until then counts
        excused = all(f.consequence for f in checked.findings)
    if not excused or not (findings or not all(t.explains for t in trouble)):
        return None
    if checked.proved and len(trouble) == 1:
        proved = in_order(checked.proved)
        told = (*proved, *(f for f in findings if f not in proved))
        return Status.FAIL, f"{first_words(proved)}; later {trouble[0]}", told
    advice = _ADVICE.get(trouble[0].kind, "")
    return (
        Status.INCONCLUSIVE,
        f"{_WHOSE[trouble[0].blame]}: {trouble[0]}" + (f" ({advice})" if advice else ""),
        findings,
    )
