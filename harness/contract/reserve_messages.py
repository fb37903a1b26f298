# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine that others use, too, and the run that has it for a while say to each other, a line each
(docs/formats/reservation.md).

``agent.pyz reserve`` says Waiting while another run has the machine, then Reserved.  From then on it says each message
of the kernel as a KernelMessage, and answers each Ask with Answered, after all messages that there were until then.
When its input ends, or nothing came for too long, it ends what the run left there and says Released.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """Machine to run: somebody else has it.

    :ivar waiting: who, in words.
    :ivar refused: nobody waits: this is the end.
    """

    waiting: str
    refused: bool


@dataclass(frozen=True, slots=True)
class Reserved:
    """Machine to run: it is yours until your input ends.

    :ivar reserved: process id of who holds it.
    :ivar folder: folder of this run on the machine, made by it, root's own.
    :ivar inbox: where files are to be put, for who comes by sudo; empty: into the folder.
    :ivar scope: cgroup that the agent is to enter; empty: the machine has no cgroup v2.
    :ivar release: ``uname -r``.
    :ivar version: ``uname -v``, which with the release names one build of a kernel.
    :ivar boot: /proc/sys/kernel/random/boot_id.
    :ivar memory_mib: MemAvailable.
    :ivar disk: a block device that was made for this run; empty: none was wanted, or
    :ivar no_disk: why there is none.
    :ivar replayed: what an earlier run that was killed had left, and could not be taken back; empty: nothing.
    """

    reserved: int
    folder: str
    scope: str
    release: str
    version: str
    boot: str
    memory_mib: int
    disk: str = ""
    no_disk: str = ""
    inbox: str = ""
    replayed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """Machine to run: a record of /dev/kmsg as it was read (Documentation/ABI/testing/dev-kmsg)."""

    kmsg: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Run to machine: answer this number; also the sign that the run lives."""

    ask: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Machine to run: the number, after every kernel message that there was."""

    answered: int


@dataclass(frozen=True, slots=True)
class Released:
    """Machine to run: it is free again.

    :ivar why: what ended the reservation.
    :ivar released: what could not be put back, in words; empty: all is as before.
    """

    why: str
    released: tuple[str, ...]
