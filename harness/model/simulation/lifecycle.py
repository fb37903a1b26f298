# SPDX-License-Identifier: GPL-2.0-or-later
"""Host actions that end or change what lives: memslots, mappings, swap, vCPUs, the VMM, the VM (catalogue E4).

The words are situation.ModelWord.
"""

from __future__ import annotations

from dataclasses import replace

from harness.contract.words import Thread
from harness.errors import ModelError
from harness.model import delivery as d
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT
from harness.model.pages import FILES, Backing, Folio, HostPage, Pte, SwapSlot
from harness.model.simulation.engine import Process, Wait
from harness.model.simulation.host_memory import Memory
from harness.model.simulation.vcpu_thread import Vcpu
from harness.model.simulation.world import World
from harness.model.walk.user_access import user_access

_SLOT_FREE = 1 << 20  # swap offset of a page swapped out during the run: next to no other


def reclaim(memory: Memory, gpa: int) -> None:
    """mm/vmscan.c writes the page out if need be and frees it; the notifier takes the guest's mapping.

    A large folio is split before: its other pages stay in the page cache, and nobody has them mapped any more
    (mm/huge_memory.c:unmap_folio).

    :raise ModelError: it is being read: shrink_folio_list (mm/vmscan.c) leaves a locked folio alone.
    """
    vpn = memory.vpn(gpa)
    page = memory.pages[vpn]
    if page.locked:
        raise ModelError(f"reclaim of {gpa:#x}, which is being read", hint="let its read end before (wait-done)")
    if page.vma.backing in FILES:
        _split(memory, page)
        memory.pages[vpn] = replace(page, pte=Pte.NONE, folio=None)
    else:
        slot = SwapSlot(offset=_SLOT_FREE + vpn, synchronous=memory.device.device.synchronous)
        pte = Pte.SWAP if page.vma.backing is Backing.ANON else Pte.NONE
        memory.pages[vpn] = replace(page, pte=pte, folio=None, swap=slot)
    memory.unmap(gpa)


def let_go(memory: Memory, gpa: int) -> None:
    """A notifier of reclaim that is not its last: writeback cleans a shared PTE (mm/rmap.c:page_mkclean), reclaim takes
    a clean one, and leaves a page in the cache that is dirty or locked by then (mm/vmscan.c:shrink_folio_list)."""
    vpn = memory.vpn(gpa)
    page = memory.pages[vpn]
    if page.vma.backing in FILES and page.pte in (Pte.WRITABLE, Pte.READ_ONLY):
        memory.pages[vpn] = replace(page, pte=Pte.READ_ONLY if page.pte is Pte.WRITABLE else Pte.NONE)
    memory.unmap(gpa)


def _split(memory: Memory, page: HostPage) -> None:
    """mm/huge_memory.c:split_folio of a page's folio; PG_readahead stays with the first page."""
    indices = page.folio_indices
    for vpn in memory.vpns("index", tuple(indices)) if len(indices) > 1 else ():
        other = memory.pages[vpn]
        if other.folio is not None:
            small = replace(other.folio, order=0, readahead=other.folio.readahead and other.index == indices.start)
            memory.pages[vpn] = replace(other, pte=Pte.NONE, folio=small)
        memory.unmap(other.index << 12)


def delete_slot(memory: Memory, gpa: int) -> None:
    """KVM_SET_USER_MEMORY_REGION of size 0: the guest's page is gone, the VMM's mapping stays."""
    memory.no_slot.add(gpa >> 12)
    memory.forget_mappings()


def munmap(memory: Memory, gpa: int) -> None:
    """The VMM unmaps the page; the memslot stays, and so does a read in flight (the swap or page cache owns it)."""
    vpn = memory.vpn(gpa)
    old = memory.pages[vpn]
    memory.pages[vpn] = HostPage(vpn=vpn, vma=replace(old.vma, backing=Backing.NO_VMA), index=old.index)
    memory.unmap(gpa)


def truncate(memory: Memory, gpa: int) -> None:
    """The file is made to end below the page; unmap_mapping_range: the notifier zaps the SPTE."""
    vpn = memory.vpn(gpa)
    memory.pages[vpn] = replace(memory.pages[vpn], pte=Pte.NONE, folio=None, swap=None, beyond_eof=True)
    memory.unmap(gpa)


def write_protect(memory: Memory) -> None:
    """All of RAM is logged for being dirtied, and the log is cleared once (arch/x86/kvm/mmu/mmu.c:
    kvm_arch_mmu_enable_log_dirty_pt_masked): the next write to each page faults once, and fast_page_fault ends that."""
    for tables in (memory.spte, memory.l2_spte):
        tables.update(dict.fromkeys(tables, False))


def swapoff(memory: Memory) -> Process:
    """mm/swapfile.c:try_to_unuse: read what is not in the swap cache, wait for the lock, put the page into the PTE.

    :raise ModelError: a page of shmem is on swap: shmem_unuse is not modelled.
    """
    for vpn in sorted(memory.pages):
        page = memory.pages[vpn]
        if page.swap is None:
            continue
        if page.vma.backing is not Backing.ANON:
            raise ModelError(f"swapoff of {page.vma.backing} memory is not modelled")
        if page.folio is None:
            memory.read_slot_by_other(vpn)
        while memory.pages[vpn].locked:
            yield Wait(signals=(memory.signals[vpn],))
        now = memory.pages[vpn]
        pte = Pte.READ_ONLY if now.pte is Pte.SWAP else now.pte  # else a fault was faster: folio_free_swap only
        memory.pages[vpn] = replace(now, pte=pte, swap=None)


def unplug(vcpu: Vcpu) -> None:
    """QEMU parks the fd (accel/kvm: do_kvm_destroy_vcpu): KVM_RUN is not called again, the vCPU's works live on."""
    vcpu.kvm.park()


def plug(vcpu: Vcpu) -> Process:
    """device_add finds the parked descriptor (accel/kvm: kvm_get_vcpu) and resets its vCPU, which waits for a SIPI."""
    d.reset(vcpu.kvm.state, init=False)
    yield from vcpu.kvm.clear()


def restore(world: World, memory: Memory, vcpus: list[Vcpu], *, same_process: bool) -> Process:
    """loadvm (``same_process``: reset, then load) or a migration to a file and back, here seen as one VM.

    The works of the old life are cleared: running ones end (DONE), none is READY.  All of RAM is read or written by the
    VMM, so it is resident.  Then target/i386/kvm/kvm.c:kvm_put_msrs writes INT and EN, which queues a wake-all.
    apf.halted is in no saved state: after a migration an artificial halt is over, after loadvm it is if the reset ends
    it or the wake-all does (F1).  A pending #PF and the guest's memory stay.  A machine that stood stands
    on until cont.
    """
    stood = all(vcpu.kvm.stopped for vcpu in vcpus)
    for vcpu in vcpus:
        vcpu.kvm.stopped = True
        world.engine.fire(vcpu.kvm.wake)
    for vcpu in vcpus:
        yield from vcpu.kvm.clear()
    yield from _load(world, memory, same_process=same_process)
    if not same_process or world.situation.guest.firmware:  # a PC's reset deletes memory slots
        memory.forget_mappings()
    for vcpu in vcpus:
        s = vcpu.kvm.state
        enabled, vector = s.en_val, s.int_vec
        if same_process:
            d.write_msr(s, MSR_ASYNC_PF_EN, 0)
            # The VMM read the events before it queued an NMI, and KVM_SET_VCPU_EVENTS takes what is queued before it
            # writes what was read (arch/x86/kvm/x86.c:kvm_vcpu_ioctl_x86_set_vcpu_events).
            s.nmi_pending = 0
        else:  # a new struct kvm_vcpu
            s.halted = s.req_halt = s.req_ready = s.pageready_pending = False
            s.id = 0
        d.write_msr(s, MSR_ASYNC_PF_INT, vector)
        d.write_msr(s, MSR_ASYNC_PF_EN, enabled, area_ok=s.shared_ok)
        if s.halted and not d.kvm_vcpu_has_events(s, irq=vcpu.kvm.deliverable() > 0):
            world.known_faults.append("F1")
        if not stood:
            vcpu.kvm.stopped = False
            world.engine.fire(vcpu.kvm.wake)


def _load(world: World, memory: Memory, *, same_process: bool) -> Process:
    """migration/ram.c:ram_handle_zero: a page that held only zero bytes is read, and written only if it holds others;
    behind a snapshot of the machine that stands it does not.  Every other page is written."""
    for pool in world.situation.pages:
        gpa, page = pool.gpa, memory.page(pool.gpa)
        untouched = page.vma.backing is Backing.ANON and page.pte in (Pte.ZERO, Pte.NONE)
        began_zero = pool.page.swap is not None and pool.page.swap.zero
        zero = untouched or (began_zero and page.pte is not Pte.WRITABLE)  # else whoever made it writable has written
        if not same_process:
            folio = None if zero else Folio()
            memory.pages[page.vpn] = replace(page, pte=Pte.ZERO if zero else Pte.WRITABLE, folio=folio, swap=None)
        else:
            access = user_access(world.situation.kernel, write=not zero, env=memory.env)
            yield from memory.perform(access, gpa, Thread.OTHER)


def sigkill(world: World, vcpus: list[Vcpu]) -> Process:
    """The VMM dies: no vCPU runs again; kvm_destroy_vm cancels what has not started and waits for what runs.

    World.vm_gone_ns is when the last vCPU was freed.  The address space goes at the same moment on all kernels: a
    running worker holds mm_users on each, and what 5.10 and 6.1 hold for a queued one ends with its cancelling.
    """
    for vcpu in vcpus:
        vcpu.kvm.error = "SIGKILL"
        world.engine.fire(vcpu.kvm.wake)
    for vcpu in vcpus:
        yield from vcpu.kvm.clear(destroyed=True)
    world.vm_gone_ns = world.engine.now
