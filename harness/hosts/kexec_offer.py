# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine says of booting another kernel: for who wants to do it, and for `apf doctor`."""

from __future__ import annotations

from harness.contract.kexec_messages import KexecOffer
from harness.contract.structure import from_json
from harness.errors import InfraFault
from harness.hosts.base import Host

_ASK_S = 60.0


def ask_offer(host: Host, agent: str, address: str) -> KexecOffer:
    """Whether a machine can boot another kernel.

    :param agent: the agent's file there; ``address``: the machine's own, at which it was reached; empty: not known.
    :raise InfraFault: it does not say.
    """
    done = host.run(["python3", agent, "kexec", "--check", address], deadline_s=_ASK_S)
    if done.code != 0:
        raise InfraFault(f"the agent cannot be run there: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return from_json(KexecOffer, done.stdout)
