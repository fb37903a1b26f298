# SPDX-License-Identifier: GPL-2.0-or-later
"""Plan -> Situation -> Prediction: the plan in the model's words, and the model's answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from harness.contract import plan as p
from harness.contract.capture import Precondition
from harness.contract.gate import rule_of
from harness.contract.host_program import AreaCase, Case, GuestCase, HaltCase, TokenCase, cases
from harness.contract.probe_abi import page_word
from harness.contract.words import Release
from harness.errors import ModelError
from harness.model.case_prediction import CasePrediction
from harness.model.cpu_model import Feature, parse_cpu
from harness.model.delivery import L2Controls
from harness.model.events import MSR_ASYNC_PF_EN
from harness.model.halted_vcpu import predict_halt
from harness.model.kernels import KernelModel
from harness.model.moved_area import predict_area
from harness.model.odd_guest import predict_guest
from harness.model.pages import Backing, Folio, HostPage, Pte, SwapSlot, Vma
from harness.model.pv_features import PvFeatures
from harness.model.readahead import FAULT_AROUND_PAGES
from harness.model.simulation import situation as m
from harness.model.simulation.linux_guest import LinuxGuest, predict_linux
from harness.model.simulation.machine import run_once
from harness.model.simulation.simulate import each_first, simulate
from harness.model.simulation.situation import with_timing
from harness.model.told_l1 import predict_token

MS = 1_000_000
US = 1_000
RAM_VPN = 0x7F0000000
"""Page number at which the model puts the VMM's mapping of guest RAM: 2 MiB aligned, as QEMU aligns it.  A file (also a
memfd) it aligns to a page of that file."""
_BACKINGS = {
    (p.Backing.ANON, False): Backing.ANON,
    (p.Backing.ANON, True): Backing.SHMEM,  # share=on without a file: shmem
    (p.Backing.MEMFD, True): Backing.SHMEM,
    (p.Backing.MEMFD, False): Backing.FILE_PRIVATE,
    (p.Backing.FILE, True): Backing.FILE_SHARED,
    (p.Backing.FILE, False): Backing.FILE_PRIVATE,
}
_NO_DATA = (p.PageStart.UNTOUCHED, p.PageStart.ZERO_SWAPPED)


ORDERS = 40
"""So many are tried where a run did not come to its end: whether its program can does not hang by one order alone."""


def predict(
    plan: p.Plan,
    kernel: KernelModel,
    proof: Precondition | None = None,
    *,
    ram_vpn: int | None = None,
    orders: int = 0,
) -> m.Prediction:
    """What must be seen when this plan is performed on this kernel.

    :param proof: precondition.json of a capture, which knows the swap offsets; None before anything was performed.
    :param ram_vpn: page number in the VMM of guest physical address 0, which decides where fault-around and the windows
        of VMA read-ahead are clipped; None: not known, as before a run.
    :param orders: with every kind of choice that a kernel is free in, and so many orders of what may come in any, for
        an answer before the run, and with each place that a RAM file may have in a block of fault-around.
    :raise ModelError: the plan asks for a state that the model knows to be impossible.
    """
    match plan.guest.kind:
        case p.GuestKind.LINUX:
            return predict_linux(linux_guest(plan, proof), kernel)
        case p.GuestKind.HOST_PROGRAM:
            return _predict_program(plan, kernel)
        case p.GuestKind.PROBE:
            pass
        case _:
            assert_never(plan.guest.kind)
    elsewhere = []
    if orders and ram_vpn is None and plan.memory.backing is not p.Backing.ANON:
        elsewhere = [
            (f"the RAM file {n} pages behind a multiple of 64 KiB", situation_of(plan, kernel, proof, RAM_VPN + n))
            for n in range(1, FAULT_AROUND_PAGES)
        ]
    situation = situation_of(plan, kernel, proof, RAM_VPN if ram_vpn is None else ram_vpn)
    return simulate(situation, orders=orders, elsewhere=elsewhere)


def unending(plan: p.Plan, kernel: KernelModel) -> tuple[int, ...]:
    """Items of a probe guest's program that have no end within its deadline, by one run of the model: for a word of
    warning before the plan is performed.  Empty: all end, or the guest is another.

    :raise ModelError: as predict().
    """
    if plan.guest.kind is not p.GuestKind.PROBE:
        return ()
    machine = run_once(situation_of(plan, kernel))
    if machine.ended:
        return ()
    return tuple(i.index for i in plan.items if not machine.world.item(i.index).ended)


def held_for_good(plan: p.Plan, kernel: KernelModel) -> Iterator[frozenset[int]]:
    """Guest frame numbers whose reads a gated source still holds when a probe guest's program, which never ends, has
    met its deadline, by one run of the model each: as it is, and with each vCPU before all others.

    :raise ModelError: as predict().
    """
    if plan.guest.kind is not p.GuestKind.PROBE:
        return
    situation = situation_of(plan, kernel)
    for each in (situation, *(with_timing(situation, timing) for timing in each_first(situation))):
        machine = run_once(each)
        gate = machine.memory.gate
        if not machine.ended and gate is not None:
            yield frozenset[int]().union(*(read.pages for read in gate.held))


def predict_cases(plan: p.Plan, kernel: KernelModel) -> tuple[CasePrediction, ...]:
    """What a host program must say, test by test.

    :raise ModelError: it tests what this kernel does not have.
    """
    return tuple(_predict_case(kernel, case) for case in cases(plan.guest.workload, plan.guest.cmdline))


def _predict_case(kernel: KernelModel, case: Case) -> CasePrediction:
    match case:
        case HaltCase():
            return predict_halt(kernel, case)
        case TokenCase():
            return predict_token(kernel, case)
        case AreaCase():
            return predict_area(kernel, case)
        case GuestCase():
            return predict_guest(kernel, case)


def _predict_program(plan: p.Plan, kernel: KernelModel) -> m.Prediction:
    """Its tests as notes: it has no items and no totals."""
    found = predict_cases(plan, kernel)
    return m.Prediction(
        kernel=kernel.name,
        items=(),
        totals={},
        events=(),
        notes=tuple(str(each) for each in found),
        known_faults=tuple(dict.fromkeys(fault for each in found for fault in each.faults)),
    )


def situation_of(
    plan: p.Plan, kernel: KernelModel, proof: Precondition | None = None, ram_vpn: int = RAM_VPN
) -> m.Situation:
    """The plan of a probe guest as the simulation wants it.

    :raise ModelError: an impossible page state.
    """
    offsets = _offsets(proof)
    vma = _vma(plan, ram_vpn)
    device = plan.swap
    zram, rule = device.kind is p.SwapKind.ZRAM, rule_of(device)
    at_once = zram or (rule is not None and rule.word is Release.OPEN)
    return m.Situation(
        kernel=_as_set(kernel, plan),
        vma=vma,
        pages=(*(_page(plan, vma, page, n, offsets) for n, page in enumerate(plan.pages)), *_unplanned_area(plan, vma)),
        steps=tuple(_step(plan, item) for item in plan.items),
        vcpus=plan.guest.vcpus,
        vcpu_ids=p.vcpu_ids(plan.guest),
        guest=_guest(plan, kernel),
        device=m.Device(
            delay_ns=0 if at_once else device.delay_ms * MS,
            synchronous=zram,
            issues_bios=not zram or not kernel.do_poll,
            page_cluster=device.page_cluster,
            vma_readahead=zram or not device.rotational,
            ra_pages=0 if plan.memory.random_advice else 32,
            swap_pages=device.size_mib << 8,
            rule=rule,
        ),
        timed=tuple((t.at_ms * MS, _actions(t.actions)) for t in plan.timed),
        deadline_ns=plan.deadline_s * 1000 * MS,
        settle_ns=plan.settle_ms * MS,
        swap_offsets_known=bool(offsets),
        ram_file=_ram_file(plan),
        realtime=plan.guest.realtime,
        before_run=proof is None,
    )


def _ram_file(plan: p.Plan) -> m.RamFile | None:
    """What harness/agent/ram/file.py makes: all of the pool dropped, data around the planned pages, holes, and a hole
    below the pool, of which read-ahead finds no page cached; or each, which is the same from then on."""
    if plan.memory.backing is not p.Backing.FILE:
        return None
    pool, end = p.POOL_GPA // p.PAGE_SIZE, plan.guest.memory_mib << 8
    pages = [page.gpa // p.PAGE_SIZE for page in plan.pages if page.start is not p.PageStart.UNTOUCHED]
    before, after = p.RAM_FILE_DATA_BEFORE, p.RAM_FILE_DATA_AFTER
    data = _joined((max(pool, n - before), min(end, n + after)) for n in pages)
    holes = (page.gpa // p.PAGE_SIZE for page in plan.pages if page.start is p.PageStart.UNTOUCHED)
    return m.RamFile(pool - before, end, data, tuple(sorted(holes)))


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same numbers as in these [first, end) ranges, in as few as it takes."""
    found: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((first, end))
    return tuple(found)


def _offsets(proof: Precondition | None) -> dict[int, int]:
    pages = proof.pages.values() if proof else ()
    return {page.gpa: page.swap_offset for page in pages if page.swap_offset}


def _vma(plan: p.Plan, start: int) -> Vma:
    pages = plan.guest.memory_mib << 8
    backing = _BACKINGS[plan.memory.backing, plan.memory.share]
    missing = plan.swap.kind is p.SwapKind.USERFAULT
    return Vma(
        backing=backing, start=start, end=start + pages, rand_read=plan.memory.random_advice,
        seq_read=plan.memory.sequential_advice, userfaultfd=missing,
    )  # fmt: skip


def _page(plan: p.Plan, vma: Vma, page: p.Page, position: int, offsets: Mapping[int, int]) -> m.PoolPage:
    index = page.gpa // p.PAGE_SIZE
    host = HostPage(vpn=vma.start + index, vma=vma, index=index)
    swapped = page.start in (p.PageStart.SWAPPED, p.PageStart.SWAPCACHE, p.PageStart.ZERO_SWAPPED)
    slot = None
    if swapped:
        slot = SwapSlot(
            offset=offsets.get(page.gpa, position + 1),
            synchronous=plan.swap.kind is p.SwapKind.ZRAM,
            zero=page.start is p.PageStart.ZERO_SWAPPED,
            zswap=_zswap(plan),
            read_fails=page.name in plan.swap.error,
        )
    pte, folio = _resident(vma.backing, page.start)
    empty = page.start in _NO_DATA and plan.swap.kind is not p.SwapKind.USERFAULT  # whose manager has the contents
    content = 0 if empty else page_word(page.gpa, plan.nonce)
    hole = page.start is p.PageStart.UNTOUCHED and plan.memory.backing is p.Backing.FILE
    state = HostPage(vpn=host.vpn, vma=vma, pte=pte, folio=folio, swap=slot, index=index, hole=hole)
    return m.PoolPage(page.name, page.gpa, state, content)


def _unplanned_area(plan: p.Plan, vma: Vma) -> tuple[m.PoolPage, ...]:
    """The pool page of the shared area where it is none of the planned: untouched, or dropped and without blocks.

    :raise ModelError: what is not modelled: an item touches the page, or several vCPUs share the area.
    """
    gpa = p.area_page(plan)
    if not gpa:
        return ()
    if plan.guest.vcpus > 1:
        raise ModelError("several vCPUs with one shared area are not modelled", hint="leave apf.en_gpa out")
    if any(item.op is p.Op.TOUCH and item.gpa == gpa for item in plan.items):
        raise ModelError(f"an item touches {gpa:#x}, the page of the shared area: not modelled")
    if any(page.gpa == gpa for page in plan.pages):
        return ()
    return (_page(plan, vma, p.Page(gpa, p.PageStart.UNTOUCHED, "shared area"), len(plan.pages), {}),)


def area_words(plan: p.Plan) -> tuple[int, int]:
    """Flags and token word of a shared area in the pool before anybody writes them.

    :raise ModelError: it lies behind the known first bytes of a page that holds data.
    """
    gpa = p.area_page(plan)
    copied = plan.swap.kind is p.SwapKind.USERFAULT  # the agent puts there what a page of the plan holds
    if not any(page.gpa == gpa and (copied or page.start not in _NO_DATA) for page in plan.pages):
        return 0, 0
    if plan.guest.apf.en_gpa != gpa:
        raise ModelError("a shared area behind the first 64 bytes of a page that holds data: not modelled")
    word = page_word(gpa, plan.nonce)
    return word & 0xFFFFFFFF, word >> 32


def _as_set(kernel: KernelModel, plan: p.Plan) -> KernelModel:
    """The kernel with the module's parameters of the plan (arch/x86/kvm/mmu/tdp_mmu.c:kvm_mmu_init_tdp_mmu reads its
    when the VM is made)."""
    value = dict(plan.kernel_params).get("kvm.tdp_mmu")
    return kernel if value is None else replace(kernel, tdp_mmu=value in ("Y", "y", "1"))


def _zswap(plan: p.Plan) -> bool:
    """Whether what is swapped out stays compressed in memory: mm/zswap.c, switched on before swapon.  So does a page of
    zeroes where no zero map has it before (zswap_is_page_same_filled)."""
    on = dict(plan.kernel_params).get("zswap.enabled", "N") in ("Y", "y", "1")
    return on and plan.swap.kind in (p.SwapKind.DELAY, p.SwapKind.GATED)


def _resident(backing: Backing, start: p.PageStart) -> tuple[Pte, Folio | None]:
    """Page table entry and folio of a page in this state."""
    if start is p.PageStart.POPULATED:
        return Pte.WRITABLE, Folio()
    if start is p.PageStart.SWAPCACHE:
        return (Pte.NONE if backing is Backing.SHMEM else Pte.SWAP), Folio()
    if start in (p.PageStart.SWAPPED, p.PageStart.ZERO_SWAPPED):
        return (Pte.NONE if backing is Backing.SHMEM else Pte.SWAP), None
    if start is p.PageStart.DROPPED and backing not in (Backing.FILE_SHARED, Backing.FILE_PRIVATE):
        raise ModelError(f"{start}: {backing} memory is not read from a file")
    return Pte.NONE, None


def pv_features(plan: p.Plan, kernel: KernelModel, *, vmexit_named: bool = False) -> PvFeatures:
    """What the guest is offered.  Without the series there is none of the MSRs.  ``vmexit_named``: QEMU has a name for
    ASYNC_PF_VMEXIT."""
    cpu = parse_cpu(plan.guest.cpu)
    return PvFeatures(
        async_pf=kernel.has_apf and cpu.async_pf,
        vmexit=kernel.has_apf and cpu.shows_vmexit(named=vmexit_named),
        interrupt=kernel.has_apf and cpu.async_pf_int,
        enforced=cpu.enforced or not kernel.has_apf,
    )


def offered_features(plan: p.Plan, kernel: KernelModel) -> tuple[str, ...]:
    """Names of the features of async page faults that CPUID shows to QEMU's guest."""
    if plan.guest.kind is p.GuestKind.HOST_PROGRAM:
        return ()
    features = pv_features(plan, kernel)
    return tuple(feature.name for feature in Feature if features.shows(feature))


def _guest(plan: p.Plan, kernel: KernelModel) -> m.GuestStart:
    apf, guest = plan.guest.apf, plan.guest
    top = guest.memory_mib << 20
    own = apf.en_gpa == -1
    return m.GuestStart(
        en_flags=apf.en_flags,
        vector=apf.vector,
        area_ok=own or apf.en_gpa < top,
        en_gpa=apf.en_gpa,
        area_gpa=p.area_page(plan),
        area_words=area_words(plan),
        lapic_enabled=apf.lapic_enabled,
        zero_token=apf.zero_token,
        ack=apf.ack,
        ack_first=apf.ack_first,
        idle=guest.idle,
        features=pv_features(plan, kernel),
        lapic_in_kernel=guest.irqchip != "off",
        x2apic=guest.irqchip != "off" and parse_cpu(guest.cpu).x2apic,
        hlt_exits=not guest.cpu_pm,
        firmware=guest.machine != "microvm",
    )


def _step(plan: p.Plan, item: p.Item) -> m.Step:
    area = item.value & ~63
    if item.msr == MSR_ASYNC_PF_EN and p.POOL_GPA <= area < plan.guest.memory_mib << 20:
        raise ModelError(f"item {item.index} puts the shared area into the pool: only apf.en_gpa may")
    own_area = item.msr != MSR_ASYNC_PF_EN or (item.value & ~63) < plan.guest.memory_mib << 20
    host = item.op is p.Op.HOST
    return m.Step(
        index=item.index,
        kind=item.op,
        vcpu=item.vcpu,
        gpa=item.gpa,
        write=item.access is p.Access.WRITE,
        cpl=item.cpl,
        interrupts=item.interrupts,
        shadow=item.shadow,
        no_paging=item.no_paging,
        in_delivery=item.by is not p.By.INSTRUCTION,
        by_token=item.by is p.By.TOKEN,
        nested=item.level == 2,
        l2=L2Controls(
            svm=True,
            intercept_interrupts=plan.guest.l2.intercept_intr,
            intercept_pf=plan.guest.l2.intercept_pf,
            intr_masking=plan.guest.l2.intr_masking,
            l1_interrupts=plan.guest.l2.l1_interrupts,
            npt=plan.guest.l2.npt,
            intercept_vintr=plan.guest.l2.intercept_vintr,
        ),
        wait=item.wait,
        pause_ns=item.pause_us * US,
        msr=item.msr,
        value=item.value,
        area_ok=own_area,
        actions=_actions(plan.host_actions[item.value]) if host else (),
        page=item.page,
    )


def _actions(actions: tuple[p.HostAction, ...]) -> tuple[m.HostDo, ...]:
    return tuple(m.HostDo(a.do, a.arg) for a in actions)


def linux_guest(plan: p.Plan, proof: Precondition | None = None) -> LinuxGuest:
    """What is known of a Linux guest beforehand; from precondition.json, how much of it stayed in memory."""
    guest = plan.guest
    cpu = parse_cpu(guest.cpu)
    offered = cpu.async_pf_int and (cpu.async_pf or not cpu.enforced)
    return LinuxGuest(
        vcpus=p.online_cpus(guest),
        enables=offered and "no-kvmapf" not in guest.cmdline.split() and guest.irqchip != "off",
        lapic_in_kernel=guest.irqchip != "off",
        hlt_exits=not guest.cpu_pm,
        swaps=plan.swap.kind is not p.SwapKind.NONE and guest.workload != "boot",
        anonymous=plan.memory.backing is p.Backing.ANON and not plan.memory.share,
        synchronous_device=plan.swap.kind is p.SwapKind.ZRAM,
        page_cluster=plan.swap.page_cluster,
        rotational=plan.swap.rotational,
        pages=guest.workload_pages,
        runs_l2=guest.workload == "l2",
        vmexit_offered=cpu.async_pf_vmexit,
        resident_pages=_left_in_memory(proof),
        traced_from_boot=guest.workload == "boot",
    )


def _left_in_memory(proof: Precondition | None) -> int:
    """Pages of the VM (anonymous and shmem) that were not swapped out; 0 before anything was performed."""
    totals = proof.totals if proof else {}
    return -(-(totals.get("anon_left", 0) + totals.get("shmem_left", 0)) // p.PAGE_SIZE)
