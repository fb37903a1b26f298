# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault episodes and the guest's log -> what happened to each item of the plan.

The two have no common clock.  What they share is order on each vCPU, the page, and the token, and the agent's actions,
for which the guest waits in an item: what it did before is over then, and the rest has not begun.  The guest's log is a
sequence of stretches in which one item ran (START or WAKE up to TOKEN or END), and each episode belongs to the next
stretch that touches its page by the same access (the W bit of the error code: a page that was only read is mapped
read-only, so that the write after it faults by itself); an episode that injected a token ends the stretch that logged
the token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.contract.plan import PAGE_SIZE, POOL_GPA, Access, By, Item, Op, Plan, area_page
from harness.contract.probe_abi import Record
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.evidence.resets import Boot
from harness.judge.episodes import Episode
from harness.judge.verdict_types import Reader
from harness.model.events import Event
from harness.model.simulation.recorded import RecordedAction

FOR_EVER = 1 << 63
NO_ITEM = -1
"""Records of the set-up before the program; an END among them says that a write of INT or EN got a #GP."""
GP_VECTOR = 13


@dataclass(slots=True)
class Stretch:
    """One item running on one vCPU without interruption by another item."""

    item: int
    page: int  # page number, -1 for an item that touches nothing
    write: bool = False
    nested: bool = False  # by an L2
    token: int = 0  # the token that ended it, 0 when it ended otherwise
    since_ns: int = 0  # not begun before, on the trace clock
    until_ns: int = FOR_EVER  # over by then
    life: int = 0  # how often its vCPU was reset before


@dataclass(slots=True)
class SeenItem:
    """What the evidence says of one item."""

    index: int
    episodes: list[Episode] = field(default_factory=list)
    started: bool = False
    ended: bool = False
    value: int | None = None  # what a read touch read
    gp: bool = False
    tokens: list[int] = field(default_factory=list)  # as the guest logged them
    woken: int = 0


@dataclass(frozen=True, slots=True)
class Alignment:
    """``strangers``: episodes on pool pages that belong to no item; ``own``: on the guest's own memory."""

    items: tuple[SeenItem, ...]
    strangers: tuple[Episode, ...]
    own: tuple[Episode, ...]
    problems: tuple[str, ...]


def in_boot(boots: Sequence[Boot], event: Event) -> bool:
    """Whether the vCPU of the event ran firmware or start-up code after a reset."""
    return any(b.vcpu == event.vcpu and b.start_ns <= event.t_ns <= b.end_ns for b in boots)


def align(
    plan: Plan,
    log: GuestLog,
    episodes: Iterable[Episode],
    boots: Sequence[Boot] = (),
    waits: Mapping[int, tuple[int, int]] = MappingProxyType({}),
) -> Alignment:
    """Give each episode to its item.  Problems are contradictions inside the guest's log.

    ``boots``: while a vCPU boots after a reset it also touches memory of the guest's own above the pool's start, where
    QEMU puts the items file again; planned pages are not among it.  ``waits``: from when to when an item was at what
    the trace tells of: host_waits(), and times_of_writes().
    """
    seen = tuple(SeenItem(i.index) for i in plan.items)
    problems: list[str] = []
    stretches = [_stretches(plan, log.vcpus[v], seen, problems) for v in range(plan.guest.vcpus)]
    for v, of_vcpu in enumerate(stretches):
        _bound(of_vcpu, waits, [b.start_ns for b in boots if b.vcpu == v])
    cursor = [0] * plan.guest.vcpus
    strangers: list[Episode] = []
    own: list[Episode] = []
    planned = {page.gpa // PAGE_SIZE for page in plan.pages}
    area = area_page(plan) // PAGE_SIZE or -1
    top = plan.guest.memory_mib << 20
    for episode in episodes:
        if episode.gpa // PAGE_SIZE == area:
            own.append(episode)
            continue
        booting = episode.gpa // PAGE_SIZE not in planned and in_boot(boots, episode.start)
        if booting or not POOL_GPA <= episode.gpa < top:
            own.append(episode)
            continue
        v = episode.vcpu
        at = _find(stretches[v], cursor[v], episode)
        if at is None:
            strangers.append(episode)
            continue
        seen[stretches[v][at].item].episodes.append(episode)
        cursor[v] = at + 1 if stretches[v][at].token and stretches[v][at].token == episode.token else at
    return Alignment(seen, tuple(strangers), tuple(own), tuple(problems))


def _find(stretches: Sequence[Stretch], start: int, episode: Episode) -> int | None:
    page = episode.gpa // PAGE_SIZE
    t_ns = episode.start.t_ns
    candidates = [
        i
        for i in range(start, len(stretches))
        if stretches[i].page == page
        and stretches[i].nested is episode.guest_mode
        and stretches[i].since_ns <= t_ns <= stretches[i].until_ns
    ]
    if episode.token:
        for i in candidates:
            if stretches[i].token == episode.token:
                return i
    same_access = [i for i in candidates if stretches[i].write == episode.write]
    return next(iter(same_access or candidates), None)


def _stretches(plan: Plan, log: Sequence[GuestRecord], seen: Sequence[SeenItem], problems: list[str]) -> list[Stretch]:
    found: list[Stretch] = []
    boots = 0
    begun: dict[int, int] = {}  # item -> boots before it started
    for entry in log:
        if entry.kind is Record.BOOT:
            found += _cut_off(plan, seen, found, boots - 1)
            boots += 1
        if not 0 <= entry.item < len(seen):
            set_up = entry.item == NO_ITEM and entry.kind is Record.END and entry.b == GP_VECTOR
            if entry.kind in (Record.START, Record.END, Record.TOKEN, Record.WAKE) and not set_up:
                problems.append(f"guest log: {entry.kind.name} names item {entry.item}, the plan has {len(seen)}")
            continue
        item, planned = seen[entry.item], plan.items[entry.item]
        if entry.kind is Record.START:
            waits_again = planned.op is Op.WAIT and begun.get(item.index, boots) < boots  # sched.c:run_program
            if item.started and not waits_again:
                problems.append(f"guest log: item {item.index} starts twice")
            item.started = True
            begun[item.index] = boots
            found.append(_stretch(planned, max(0, boots - 1)))
        elif entry.kind is Record.WAKE:
            item.woken += 1
            found.append(_stretch(planned, max(0, boots - 1)))
        elif entry.kind is Record.TOKEN:
            item.tokens.append(entry.a)
            if entry.b & 1 == 0:
                problems.append(f"guest log: token {entry.a:#x} came with flags {entry.b:#x}")
            if found and found[-1].item == item.index:
                found[-1].token = entry.a
            else:
                problems.append(f"guest log: token {entry.a:#x} for item {item.index}, which was not running")
        elif entry.kind is Record.END:
            if item.ended:
                problems.append(f"guest log: item {item.index} ends twice")
            item.ended = True
            item.value = entry.a
            item.gp = entry.b == GP_VECTOR
    return found


def _cut_off(plan: Plan, seen: Sequence[SeenItem], found: Sequence[Stretch], life: int) -> Iterator[Stretch]:
    """The item that the delivery of a token was to perform when its vCPU started anew: the handler that would have
    logged it never ran, and it starts again in the next life."""
    if not found or found[-1].life != life or found[-1].token or seen[found[-1].item].ended:
        return
    told = plan.items[found[-1].item]
    behind = next((i for i in plan.items[told.index + 1 :] if i.vcpu == told.vcpu), None)
    if behind is not None and behind.by is By.TOKEN:
        yield _stretch(behind, life)


def _bound(stretches: Sequence[Stretch], waits: Mapping[int, tuple[int, int]], resets: Sequence[int]) -> None:
    """What ran before the guest waited for the agent was over when the agent was done, what ran after it had not begun
    when the agent began, and so with a write of EN or INT; and nothing runs over a reset of the vCPU."""
    since, until = 0, FOR_EVER
    if len(resets) < max((stretch.life for stretch in stretches), default=0):
        resets = ()  # not all were seen
    for stretch in stretches:
        begun = resets[stretch.life - 1] if 0 < stretch.life <= len(resets) else 0
        since = max(since, begun, waits.get(stretch.item, (0, 0))[0])
        stretch.since_ns = since
    for stretch in reversed(stretches):
        over = resets[stretch.life] if stretch.life < len(resets) else FOR_EVER
        until = min(until, over, waits.get(stretch.item, (0, FOR_EVER))[1])
        stretch.until_ns = until


def host_waits(plan: Plan, actions: Sequence[RecordedAction]) -> dict[int, tuple[int, int]]:
    """HOST item -> from when to when the agent acted for it, on the clock of ``actions``.

    :param actions: those of the agent, in order.  In older captures they do not say whose they are: empty where they
        may be another's, where more than one vCPU waits, or there are timed ones.
    """
    items = [item for item in plan.items if item.op is Op.HOST]
    if any(action.host >= 0 for action in actions):
        own = {item.index: [a for a in actions if a.host == item.value] for item in items}
        return {index: (min(a.start_ns for a in its), max(a.end_ns for a in its)) for index, its in own.items() if its}
    if plan.timed or len({item.vcpu for item in items}) > 1:
        return {}
    found, first = {}, 0
    for item in items:
        last = first + len(plan.host_actions[item.value])
        if not first < last <= len(actions):
            break
        found[item.index] = actions[first].start_ns, actions[last - 1].end_ns
        first = last
    return found


def _stretch(item: Item, life: int) -> Stretch:
    page = item.gpa // PAGE_SIZE if item.op is Op.TOUCH else -1
    return Stretch(item.index, page, write=item.access is Access.WRITE, nested=item.level == 2, life=life)


def issuer(episode: Episode, dev: int, by_worker: Iterable[Event], done_ns: int, sector: int = -1) -> Reader:
    """Who queued reads on the pages' device for this episode: the vCPU thread, a kworker, or nobody was seen to.

    :param by_worker: each read bio that a kworker queued on the device.
    :param done_ns: when the work was completed; 0 when there was none.
    :param sector: where the page begins on the device; -1: not known.
    """
    if episode.own_reads(dev):
        return Reader.VCPU
    own = (e for e in by_worker if sector < 0 or e.value <= sector < e.value + e.data)
    if done_ns and any(episode.start.t_ns <= e.t_ns <= done_ns for e in own):
        return Reader.WORKER
    return Reader.NOBODY
