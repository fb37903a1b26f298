# SPDX-License-Identifier: GPL-2.0-or-later
"""Contradictions in a scenario that its types allow: each as one line with the key path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import dropwhile, takewhile

from harness.contract.plan import PAGE_SIZE, POOL_GPA, Backing, GuestKind, HostWord, PageStart, Swap, SwapKind
from harness.contract.plan_check import MAX_PAGE_CLUSTER
from harness.contract.probe_abi import (
    EXCEPTIONS,
    MAX_ITEMS,
    MAX_VCPUS,
    VEC_ENDED,
    VEC_HELD_HIGH,
    VEC_HELD_LOW,
    VEC_INJECTED,
    VEC_START,
    VEC_TIMER,
)  # fmt: skip
from harness.errors import ApfError, ScenarioError
from harness.model.cpu_model import parse_cpu
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT
from harness.scenario import bounds
from harness.scenario.build import MSRS, build_plan, msr_value
from harness.scenario.delivery_steps import check_by, check_in_service, check_told_above
from harness.scenario.gate_keys import check_errors, check_gate
from harness.scenario.guest_kinds import check_guest
from harness.scenario.host_steps import check_host
from harness.scenario.lapic_steps import check_base
from harness.scenario.pages import is_set_name, lay_out, select
from harness.scenario.schema import ACTIONS, L2, LAPIC_WORDS, PAGING_WORDS, PageSet, Scenario, Step
from harness.scenario.shared_area import check_apart, check_page, check_set_up, check_write
from harness.scenario.step_keys import check_keys
from harness.scenario.step_names import check_names

VARIANTS = ("sync", "noio", "nowait")
_SWAP_STATES = (PageStart.SWAPPED, PageStart.ZERO_SWAPPED, PageStart.SWAPCACHE)
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*(/[A-Za-z0-9_.-]+=.*)?", re.DOTALL)  # with what a [matrix] adds
_SWITCHES = ("kvm.tdp_mmu", "zswap.enabled")
"""Parameters that the model knows (harness/prediction.py)."""
_ON_OR_OFF = ("Y", "y", "1", "N", "n", "0")
_EN_FLAGS = 0x3F  # the bits of MSR_KVM_ASYNC_PF_EN below the address (arch/x86/kvm/x86.c:kvm_pv_enable_async_pf)


def check(s: Scenario) -> Iterator[str]:
    """Problems as "$.key: text"; nothing when a plan can be built from the scenario."""
    clean = True
    for problem in _problems(s):
        clean = False
        yield problem
    if not clean:
        return
    try:
        build_plan(s, 0)
    except ApfError as exc:  # what the checks above have missed must be told here, and not in the middle of a run
        yield f"$: {exc.message}"


def _problems(s: Scenario) -> Iterator[str]:
    yield from _words(s)
    yield from _machine(s)
    yield from _apf(s)
    yield from _swap(s)
    yield from check_guest(s)
    yield from _l2(s)
    yield from check_base(s)
    yield from _sets(s)
    for i, timed in enumerate(s.timed):
        yield from bounds.number(f"$.timed[{i}].at_ms", timed.at_ms, 0, 1000 * max(1, s.deadline_s))
    if any(next(_size(p), "") for p in s.pages.values()):
        return  # nothing can be placed, so that nothing more can be said about pages
    pages = sum(p.groups * p.run for p in s.pages.values())
    if pages > bounds.MAX_PAGES:
        yield f"$.pages: {pages} pages, at most {bounds.MAX_PAGES} are allowed"
        return
    out = sum(p.groups * p.run for p in s.pages.values() if p.start in _SWAP_STATES)
    if out >= s.swap.size_mib << 8:  # one page is the signature
        yield f"$.swap.size_mib: {out} pages start on a device that has room for {(s.swap.size_mib << 8) - 1}"
    placed = lay_out(s.pages)
    yield from check_errors(s)
    top = max((gpa for gpas in placed.values() for gpa in gpas), default=POOL_GPA)
    if top + PAGE_SIZE > (s.guest.memory_mib - 1) << 20:
        yield f"$.guest.memory_mib: the pages reach up to {top / (1 << 20):.1f} MiB and 1 MiB must stay free above"
    owner: dict[int, str] = {}
    for name, gpas in placed.items():
        for gpa in gpas:
            if owner.setdefault(gpa, name) != name:
                yield f"$.pages.{name}: overlaps {owner[gpa]}"
                break
    for i, step in enumerate(s.steps):
        yield from (f"$.steps[{i}]{p}" for p in (*_step(s, step, placed), *check_by(s, i, placed)))
    yield from check_names(s)
    yield from check_apart(s, _en_writes(s))
    yield from check_page(s, placed)
    for i, timed in enumerate(s.timed):
        yield from (f"$.timed[{i}]{p}" for p in check_host(s, timed.host, placed))
    yield from _count(s, placed)


def _words(s: Scenario) -> Iterator[str]:
    """Ids and texts are printed, and ids name folders and are selected by patterns."""
    yield from bounds.prose("$.id", s.id, bounds.MAX_NAME)
    if not _ID.fullmatch(s.id) or any(c.isspace() for c in s.id.partition("/")[0]):
        yield f"$.id: {s.id[: bounds.MAX_NAME]!r} must be a word: of letters, digits, and _ . + - @ after the first"
    yield from bounds.prose("$.title", s.title, bounds.MAX_TITLE)
    yield from bounds.prose("$.catalogue", s.catalogue, bounds.MAX_NAME)
    yield from bounds.prose("$.why", s.why, bounds.MAX_PROSE, lines=True)
    if len(s.tags) > bounds.MAX_TAGS:
        yield f"$.tags: {len(s.tags)} entries, at most {bounds.MAX_TAGS} are allowed"
    for i, tag in enumerate(s.tags[: bounds.MAX_TAGS]):
        yield from bounds.prose(f"$.tags[{i}]", tag, bounds.MAX_NAME)
    for i, variant in enumerate(s.variants):
        if variant not in VARIANTS:
            yield f"$.variants[{i}]: {variant[: bounds.MAX_NAME]!r} is not one of {', '.join(VARIANTS)}"
    yield from bounds.number("$.deadline_s", s.deadline_s, 1, bounds.MAX_DEADLINE_S)
    yield from bounds.number("$.repeats", s.repeats, 1, bounds.MAX_REPEATS)
    yield from _parameters("$.kernel_params", s.kernel_params)
    yield from _parameters("$.kernel_params_at_go", s.kernel_params_at_go)
    if s.kernel_params_at_go and s.guest.kind is not GuestKind.PROBE:
        yield "$.kernel_params_at_go: only a probe guest waits to be let go"


def _parameters(path: str, parameters: Mapping[str, str]) -> Iterator[str]:
    for key, value in parameters.items():
        module, dot, name = key.partition(".")
        if not dot or not _is_identifier(module) or not _is_identifier(name):
            yield f"{path}.{key[: bounds.MAX_NAME]!r}: expected module.parameter"
        elif key == "kvm.ignore_msrs":  # arch/x86/kvm/x86.c:kvm_msr_ignored_check, of what guest_pv_has refuses
            yield f"{path}.{key!r}: a refused MSR access has no #GP then on some kernels, which the model does not know"
        elif not value.strip():
            yield f"{path}.{key!r}: an empty value writes nothing"
        elif key in _SWITCHES and value not in _ON_OR_OFF:  # the kernel takes more (lib/kstrtox.c:kstrtobool)
            yield f"{path}.{key!r}: {value[: bounds.MAX_NAME]!r} is not one of {', '.join(_ON_OR_OFF)}"
        else:
            yield from bounds.prose(f"{path}.{key!r}", value, bounds.MAX_NAME)


def _is_identifier(text: str) -> bool:
    """A module's or parameter's name: it becomes part of a path below /sys/module."""
    return 0 < len(text) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in text)


def _count(s: Scenario, placed: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Each page that a step touches is an item of the guest's program."""
    items = 0
    for step in s.steps:
        try:
            items += len(select(placed, step.touch)) if step.touch else 1
        except ScenarioError:
            return  # told with the step
        if items > MAX_ITEMS:
            yield f"$.steps: more than {MAX_ITEMS} items, and the guest's program has room for no more"
            return


def _machine(s: Scenario) -> Iterator[str]:
    g = s.guest
    if g.machine not in ("microvm", "q35"):
        yield f"$.guest.machine: {g.machine[: bounds.MAX_NAME]!r} is not microvm or q35"
    yield from bounds.number("$.guest.vcpus", g.vcpus, 1, MAX_VCPUS)
    yield from bounds.number("$.guest.cores", g.cores, 0, MAX_VCPUS)
    yield from bounds.number("$.guest.memory_mib", g.memory_mib, 32, 1024)
    if g.irqchip not in ("on", "split", "off"):
        yield f"$.guest.irqchip: {g.irqchip[: bounds.MAX_NAME]!r} is not on, split or off"
    if g.idle not in ("hlt", "spin"):
        yield f"$.guest.idle: {g.idle[: bounds.MAX_NAME]!r} is not hlt or spin"
    if g.realtime and (g.kind is not GuestKind.PROBE or g.vcpus > 1 or g.idle == "spin" or g.cpu_pm):
        yield "$.guest.realtime: for a probe guest with one vCPU whose thread sleeps when it has nothing to run"
    for key, text in (("cpu", g.cpu), ("cmdline", g.cmdline)):
        yield from bounds.prose(f"$.guest.{key}", text, bounds.MAX_TITLE if key == "cpu" else bounds.MAX_LINE)
    if not g.cpu or any(c.isspace() for c in g.cpu):
        yield f"$.guest.cpu: {g.cpu[: bounds.MAX_NAME]!r} is not a value of QEMU's -cpu"
    elif g.irqchip == "off" and g.kind is not GuestKind.HOST_PROGRAM and parse_cpu(g.cpu).async_pf_int:
        yield (
            f"$.guest.irqchip: off with cpu = {g.cpu[: bounds.MAX_NAME]!r}: QEMU aborts when it writes the MSR of "
            'kvm-asyncpf-int (finding F5); use cpu = "host,-kvm-asyncpf-int"'
        )
    elif g.kind is GuestKind.PROBE and g.irqchip != "off" and _is_set_back(s) and _hidden(g.cpu):
        yield (
            f"$.guest.cpu: {g.cpu[: bounds.MAX_NAME]!r} hides {_hidden(g.cpu)}, and QEMU writes the MSR of a feature"
            " at a reset or loadvm only where it shows it (kvm_put_msrs): what the guest has written would stay, which"
            " is not modelled; add kvm-pv-enforce-cpuid=on, or show it"
        )


def _hidden(cpu: str) -> str:
    """A feature whose MSR the guest can write all the same; "" if there is none."""
    parsed = parse_cpu(cpu)
    shown = {"kvm-asyncpf": parsed.async_pf, "kvm-asyncpf-int": parsed.async_pf_int}
    return "" if parsed.enforced else next((name for name, there in shown.items() if not there), "")


def _is_set_back(s: Scenario) -> bool:
    lists = (*(t.host for t in s.steps), *(t.host for t in s.timed))
    words = {h.do for host in lists for h in host}
    return bool(words & {HostWord.RESET, HostWord.LOADVM}) or any(t.reset for t in s.steps)


def _apf(s: Scenario) -> Iterator[str]:
    yield from bounds.number("$.apf.vector", s.apf.vector, 0, 0xFF)
    yield from _free(s, "$.apf.vector", s.apf.vector)
    yield from bounds.number("$.apf.en_flags", s.apf.en_flags, 0, _EN_FLAGS)
    if s.apf.en_gpa != -1:
        yield from bounds.number("$.apf.en_gpa", s.apf.en_gpa, 0, bounds.MAX_GPA - 64)
        if s.apf.en_gpa % 64:
            yield f"$.apf.en_gpa: {s.apf.en_gpa:#x} is not a multiple of 64: the low bits of the MSR are flags"
        yield from check_set_up(s)


def _swap(s: Scenario) -> Iterator[str]:
    yield from bounds.number("$.swap.page_cluster", s.swap.page_cluster, 0, MAX_PAGE_CLUSTER)
    yield from bounds.number("$.swap.delay_ms", s.swap.delay_ms, 0, bounds.MAX_DELAY_MS)
    yield from bounds.number("$.swap.size_mib", s.swap.size_mib, bounds.MIN_SWAP_MIB, bounds.MAX_SWAP_MIB)
    yield from check_gate(s)
    if s.swap.kind is SwapKind.ZRAM and (s.swap.rotational or s.memory.backing is Backing.FILE):
        yield "$.swap.kind: zram is never rotational and cannot carry the file system of file-backed memory"
    if s.swap.kind in (SwapKind.ZRAM, SwapKind.NONE) and s.swap.delay_ms != Swap().delay_ms:
        yield f"$.swap.delay_ms: nothing delays the reads of kind = {s.swap.kind}; leave it out, or use dm-delay"
    if s.memory.backing is Backing.FILE and s.swap.kind is SwapKind.NONE:
        yield "$.memory.backing: the file lies on the device of [swap], and swap.kind = none has none"
    elif s.memory.backing is Backing.FILE and s.swap.size_mib <= s.guest.memory_mib:
        yield (
            f"$.swap.size_mib: the file of memory_mib = {s.guest.memory_mib} lies on the device, which must be larger"
            f" than that and has {s.swap.size_mib} MiB"
        )
    if s.memory.share and s.memory.backing is Backing.ANON:
        yield "$.memory.share: shared anonymous memory is shmem of which no page's state can be proved; use memfd"
    if not s.memory.share and s.memory.backing is Backing.MEMFD:
        yield "$.memory.share: what a private mapping of a memfd holds is anonymous once written; use anon, or share"
    if s.swap.kind is SwapKind.USERFAULT and (s.memory.backing is Backing.FILE or s.guest.kind is GuestKind.LINUX):
        yield "$.swap.kind: userfaultfd is for anonymous or shared memory of a probe guest"
    if s.memory.random_advice and s.memory.backing is Backing.ANON:
        yield "$.memory.random_advice: read-ahead advice has no meaning for anonymous memory"
    if s.memory.sequential_advice and s.memory.backing is not Backing.FILE:
        yield "$.memory.sequential_advice: read-ahead advice that only a file's pages go by"
    if s.memory.sequential_advice and s.memory.random_advice:
        yield "$.memory.sequential_advice: the one takes the other away (madvise_vma_behavior)"


def _l2(s: Scenario) -> Iterator[str]:
    if s.l2 != L2() and not any(t.level == 2 for t in s.steps):
        yield "$.l2: no step has level = 2, so that there is no L2"
    if s.l2.moved and not s.l2.npt:
        yield "$.l2.moved: nested tables move it, and npt = false has none"
    if s.l2.intr_masking and not s.l2.intercept_intr:
        yield "$.l2.intr_masking: an L2 that takes interrupts itself cannot mask them in its handler; set it to false"


def _sets(s: Scenario) -> Iterator[str]:
    if len(s.pages) > bounds.MAX_SETS:
        yield f"$.pages: {len(s.pages)} sets, at most {bounds.MAX_SETS} are allowed"
    for name, p in s.pages.items():
        if not is_set_name(name) or len(name) > bounds.MAX_NAME:
            yield f"$.pages.{name[: bounds.MAX_NAME]!r}: not a name that a step could use, such as f or file_pages"
        yield from (f"$.pages.{name[: bounds.MAX_NAME]}{text}" for text in (*_size(p), *_set(s, p)))


def _size(p: PageSet) -> Iterator[str]:
    """Without these nothing can be placed.  Checked one after the other: the last needs the ones before."""
    before = len(list(sizes := [
        *bounds.number(".groups", p.groups, 1, bounds.POOL_PAGES),
        *bounds.number(".run", p.run, 1, bounds.POOL_PAGES),
        *bounds.number(".offset", p.offset, -1, bounds.POOL_PAGES),
    ]))  # fmt: skip
    yield from sizes
    if before:
        return
    if p.groups > 1 and p.stride < p.run:
        yield f".stride: {p.stride} is less than run = {p.run}: groups would overlap"
    elif p.groups > 1 and max(p.offset, 0) + (p.groups - 1) * p.stride + p.run > bounds.POOL_PAGES:
        yield f".groups: the set spans more pages than any guest has ({bounds.POOL_PAGES})"
    elif p.groups * p.run > bounds.POOL_PAGES:
        yield f".run: the set has more pages than any guest ({bounds.POOL_PAGES})"


def _set(s: Scenario, p: PageSet) -> Iterator[str]:
    if p.start in _SWAP_STATES:
        if s.swap.kind in (SwapKind.NONE, SwapKind.USERFAULT):
            yield f".start: {p.start} needs a swap device"
        if s.memory.backing is Backing.FILE:
            yield f".start: pages of a file are never {p.start}; use dropped"
    if p.start is PageStart.SWAPCACHE and s.swap.kind is SwapKind.ZRAM:
        yield ".start: a page written to zram leaves the swap cache at once"
    if p.start is PageStart.DROPPED and s.memory.backing is not Backing.FILE:
        yield f".start: dropped is for memory.backing = file, not {s.memory.backing}"


def _step(s: Scenario, t: Step, placed: dict[str, tuple[int, ...]]) -> Iterator[str]:
    if len(t.actions) != 1:
        yield f": exactly one of {', '.join(ACTIONS)} is needed, found {' and '.join(t.actions) or 'none'}"
        return
    unused = list(check_keys(t))
    yield from unused
    # What is to be left out needs no other value: advice about it would contradict that.
    left_out = tuple(text[: text.index(":") + 1] for text in unused)
    yield from (text for text in _values(s, t, placed) if not text.startswith(left_out))


def _values(s: Scenario, t: Step, placed: dict[str, tuple[int, ...]]) -> Iterator[str]:
    if not 0 <= t.vcpu < s.guest.vcpus:
        yield f".vcpu: {t.vcpu}, but the guest has {s.guest.vcpus}"
    if t.cpl not in (0, 3):
        yield f".cpl: {t.cpl} is not 0 or 3"
    if t.then not in ("go-on", "wait"):
        yield f".then: {t.then[: bounds.MAX_NAME]!r} is not go-on or wait"
    if t.shadow and not t.interrupts:
        yield ".shadow: an interrupt shadow is made by STI, so interrupts must be true"
    if t.shadow and t.cpl == 3:
        yield ".shadow: the STI is executed at CPL 0: set cpl = 0"
    if t.no_paging and t.cpl == 3:
        yield ".no_paging: code without paging runs at CPL 0: set cpl = 0"
    if not t.gif and (t.cpl, t.interrupts, t.no_paging) != (0, False, False):
        yield ".gif: CLGI is for CPL 0 with paging on, and keeps interrupts off: set cpl = 0 and interrupts = false"
    if t.tpr and t.interrupts:
        yield ".tpr: the task priority keeps interrupts off: set interrupts = false"
    yield from check_in_service(s, t)
    yield from _level(s, t)
    yield from bounds.number(".pause_us", t.pause_us, 0, bounds.MAX_U32)
    if t.timer_us != -1:
        yield from bounds.number(".timer_us", t.timer_us, 0, bounds.MAX_U32)
    if t.init != -1:
        yield from _of_another(s, t, "init", t.init)
    if t.eject != -1:
        yield from _of_another(s, t, "eject", t.eject)
    if t.lapic and t.lapic not in LAPIC_WORDS:
        yield f".lapic: {t.lapic[: bounds.MAX_NAME]!r} is not one of {', '.join(LAPIC_WORDS)}"
    if t.lapic and t.pause_us and not t.interrupts:
        yield ".interrupts: the pause before the step has them on"
    if t.lapic.startswith("base-") and not t.interrupts:
        yield f".interrupts: what waits would be taken while {t.lapic} is carried out, or not: nobody can tell"
    if t.paging and t.paging not in PAGING_WORDS:
        yield f".paging: {t.paging[: bounds.MAX_NAME]!r} is not one of {', '.join(PAGING_WORDS)}"
    if t.wrmsr:
        yield from _wrmsr(s, t)
    if t.touch:
        try:
            select(placed, t.touch)
        except ScenarioError as exc:
            yield f".touch: {exc.message}"
    yield from check_host(s, t.host, placed)


def _level(s: Scenario, t: Step) -> Iterator[str]:
    if t.level not in (1, 2):
        yield f".level: {t.level} is not 1 or 2"
    elif t.level == 2:
        if not t.touch:
            yield ".level: an L2 makes touches, and nothing else"
        if t.shadow or t.no_paging or not t.gif:
            yield ".level: an L2 has paging on, GIF = 1 and no interrupt shadow"


def _of_another(s: Scenario, t: Step, key: str, vcpu: int) -> Iterator[str]:
    """init and eject: the boot CPU would obey an INIT by running its firmware, and cannot be ejected; the trampoline
    (cpu.c:vcpu_start) is one for all."""
    if not 1 <= vcpu < s.guest.vcpus:
        yield f".{key}: {vcpu} is no vCPU but the boot CPU; the guest has {s.guest.vcpus}"
    if vcpu == t.vcpu:
        yield f".{key}: vCPU {vcpu} cannot do it to itself"
    if any(max(o.init, o.eject) != -1 and o.vcpu != t.vcpu for o in s.steps):
        yield f".{key}: steps of two vCPUs start or eject others; one is allowed"
    if any(o.host and o.vcpu == vcpu for o in s.steps):
        yield f".{key}: vCPU {vcpu} has host steps: where it would go on is not known"
    if key == "eject":
        if s.guest.machine != "q35":
            yield ".eject: CPUs of a q35 can be ejected; microvm has no hotplug of CPUs"
        behind = _until_the_next(s, t, vcpu)
        if not any(h.do is HostWord.PLUG and h.arg == vcpu for o in behind for h in o.host):
            yield f".eject: vCPU {vcpu} is plugged in again (plug) by no host step between this and its next eject"
        elif _may_reset(s, t, vcpu):
            yield f".eject: a reset may come before vCPU {vcpu} is back (plug), and the guest boots with all or none"


def _may_reset(s: Scenario, t: Step, vcpu: int) -> bool:
    """The probe guest starts every vCPU when it boots (main.c).  Steps of other vCPUs come whenever they come."""
    away = list(takewhile(lambda o: not any(h.do is HostWord.PLUG for h in o.host), _until_the_next(s, t, vcpu)))
    timed = [h for each in s.timed for h in each.host]
    words = [h for o in s.steps if o in away or o.vcpu != t.vcpu for h in o.host]
    programmed = any(o.reset for o in s.steps if o in away or o.vcpu != t.vcpu)
    return programmed or any(h.do is HostWord.RESET for h in (*timed, *words))


def _until_the_next(s: Scenario, t: Step, vcpu: int) -> Iterator[Step]:
    """The steps behind this one, up to that which ejects the same vCPU again."""
    behind = dropwhile(lambda o: o is not t, s.steps)
    next(behind)
    return takewhile(lambda o: o.eject != vcpu, behind)


def _wrmsr(s: Scenario, t: Step) -> Iterator[str]:
    if t.pause_us and not t.interrupts:
        yield ".interrupts: the pause before the write has them on"
    wrong = list(_msr(t))
    if wrong:
        yield from wrong
        return
    msr, value = MSRS.get(t.wrmsr, _number(t.wrmsr) or 0), msr_value(t.value, t.vcpu)
    yield from check_write(s, msr, value)
    if msr == MSR_ASYNC_PF_INT:
        yield from _free(s, ".value", value)  # a larger one is a #GP
        yield from check_told_above(s, t, value)


def _en_writes(s: Scenario) -> Iterator[tuple[int, int, int]]:
    for i, t in enumerate(s.steps):
        legal = t.wrmsr and 0 <= t.vcpu < s.guest.vcpus and not any(_msr(t))
        if legal and MSRS.get(t.wrmsr, _number(t.wrmsr)) == MSR_ASYNC_PF_EN:
            yield i, t.vcpu, msr_value(t.value, t.vcpu)


def _free(s: Scenario, key: str, vector: int) -> Iterator[str]:
    """The ready event's vector is no other one's (guest-images/probe/trap.c)."""
    uses = (
        (vector in EXCEPTIONS, "an exception"),
        (vector == VEC_ENDED, "the end of an access"),
        (vector == VEC_TIMER and any(t.timer_us >= 0 for t in s.steps), "the timer"),
        (vector == VEC_START and s.guest.vcpus > 1, "the start of a vCPU"),
        (vector in (VEC_HELD_LOW, VEC_HELD_HIGH) and any(t.in_service for t in s.steps), "an interrupt in service"),
        (vector == VEC_INJECTED and (s.l2.inject or s.l2.virq), "what L1 gives its L2"),
    )
    yield from (
        f"{key}: the probe guest takes vector {vector:#x} for {what}: name another" for used, what in uses if used
    )


def _msr(t: Step) -> Iterator[str]:
    number = MSRS.get(t.wrmsr, _number(t.wrmsr))
    if number is None:
        yield f".wrmsr: {t.wrmsr[: bounds.MAX_NAME]!r} is not {', '.join(MSRS)} or a number like 0x4b564d02"
    elif number not in MSRS.values():
        yield f".wrmsr: MSR {t.wrmsr} is not one of the async page fault MSRs ({', '.join(MSRS)})"
    if isinstance(t.value, int):
        yield from bounds.number(".value", t.value, 0, bounds.MAX_U64)
    elif t.value.startswith("own|"):
        flags = _number(t.value.removeprefix("own|"))
        if flags is None or not 0 <= flags <= _EN_FLAGS:
            yield f'.value: {t.value[: bounds.MAX_NAME]!r} is not "own|flags" with flags from 0 to {_EN_FLAGS}'
    else:
        plain = _number(t.value)
        if plain is None or not 0 <= plain <= bounds.MAX_U64:
            yield f'.value: {t.value[: bounds.MAX_NAME]!r} is not a 64-bit number or "own|flags"'


def _number(text: str) -> int | None:
    try:
        return int(text, 0) if len(text) <= bounds.MAX_NAME else None
    except ValueError:
        return None
