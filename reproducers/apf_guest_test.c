// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is a guest that is not as most guests are told of its missing page all the same, and nobody who is not to be told?
 *
 *	ring1		kernel mode is CPL 0 alone: a guest at CPL 1 is told without KVM_ASYNC_PF_SEND_ALWAYS
 *	paging32	a guest of 32 bits, with paging, is told
 *	logged		the page lies in a slot with a log of dirty pages: it is mapped for its ready event, and what the
 *			guest then writes there has to be in the log
 *	rom-page	the page lies in a slot that the guest may only read: the worker, which asks for a page as for a
 *			write, is not let at it, and the vCPU's own thread waits
 *	rom-written	so it comes by that page, and then writes it: the write is given to the VMM
 *	pre-fault	it is the VMM that asks for the page (KVM_PRE_FAULT_MEMORY, from 6.11 on): it waits for it itself,
 *			and the guest, which has not touched the page, is told of nothing
 *	poisoned	the page's memory has failed (MADV_HWPOISON): the vCPU's thread gets its SIGBUS, no token
 *	in-nmi		the guest touches it in a handler of an NMI that has switched interrupts on: it is told
 *	fetch		it is the next instruction that lies in the page: it is told
 *	table		it is a page table of the guest's: it is told
 *	high		the page lies above 4 GiB: it is told, and the page is mapped for its ready event
 *	last		the page, the last one of its slot, was there, and the VMM has taken it away: it is told
 *	unconsumed	the flags of an earlier token stand in the shared area still: it is told
 *	debugged	the VMM debugs the guest (KVM_SET_GUEST_DEBUG), which meets no breakpoint: it is told
 *	dirty-ring	the VMM has a ring of dirty pages, not a log: what KVM writes into the shared area has to be there,
 *			and the page that is mapped for its ready event
 *	no-payload	the VMM has not asked for KVM_CAP_EXCEPTION_PAYLOAD, and reads and writes the vCPU's events while
 *			the token is pending: it is told
 *	sync-regs	the VMM does so by KVM_CAP_SYNC_REGS: it is told
 *	smm		the guest touches it in system management mode, where another page is at that address: it is halted
 *			until that page is there
 *	smm-taken	the page was there in system management mode, and the VMM has taken it away: it is halted
 *	mapped-twice	the page was there, and the guest has touched it in two modes of its MMU (CR0.WP), when the VMM takes
 *			it away: it is told
 *	restored	the VMM gives a vCPU that runs its token as a pending exception, and nothing else (KVM_SET_VCPU_EVENTS,
 *			as for a snapshot): it is told at its next entry
 *	loaded-irr	the VMM gives a vCPU that runs a local APIC in which a ready interrupt waits, and nothing else
 *			(KVM_SET_LAPIC): it comes at the next entry
 *	paging-on	it is halted for the page with paging off, and the handler of an NMI sets CR0.PG while the page is
 *			missing: older kernels drop what is outstanding, and wait for the worker for that
 *	asked-twice	it touches the page once more behind its token, with its interrupts off: the vCPU's own thread asks for
 *			the page, too, which is there before the VMM has read that it does
 *	hole		the VMM has unmapped the page, so that nobody can have it: KVM_RUN fails, and no token
 *	aliased		the page lies in two slots, was there, and was written by both addresses, when the VMM takes it away:
 *			it is told by whichever it touches
 *	huge		the page is one of 2 MiB (hugetlbfs): it is mapped as such for its ready event
 *	huge-logged	so it is, in a slot with a log of dirty pages: what the guest writes of it is in the log, page by page
 *	zero-page	nobody has ever written the page, and the guest reads it: it is there at once, and what the VMM then
 *			writes there is what the guest reads next
 *	area-forbidden	the VMM may only read the shared area: it is told nothing, and no interrupt comes
 *	pv-eoi		a ready interrupt waits while another one of its class is in service, and the guest has PV EOI: it
 *			comes behind that one's EOI, before the guest goes on
 *
 *	cc -O2 -Wall -pthread -o apf_guest_test apf_guest_test.c && ./apf_guest_test ring1
 *
 * Output is TAP.  Exit code: 0 as it should be, 1 not, 4 skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel, as the other programs do; poisoned: CONFIG_MEMORY_FAILURE;
 * huge, huge-logged: a huge page (vm.nr_hugepages, which root's program sets itself).
 */
#define _GNU_SOURCE
#include "apf_halted.h"

/* Guest physical memory: 2 MiB, mapped one to one, and behind it a slot of two pages. */
#define MEM_SIZE	0x200000
#define GDT		0x2000
#define IDT		0x3000
#define LOW_AREA	0x4000
#define CODE		0x5000
#define DONE		0x6000	/* the guest's note that its page is ready */
#define TSS		0x7000
#define STACK		0x9000
#define STACK_RING1	0xa000
#define PML4		0xb000
#define PDPT		0xc000
#define PD_LOW		0xd000
#define PD_LAPIC	0xe000
#define PD32		0xf000
#define PD_HIGH		0x11000
#define UNUSED		0x10000	/* nobody touches it */
#define SMI_ENTRY	0x38000	/* SMBASE + 0x8000 */
#define PV_EOI		0x12000
#define OTHER		0x13000	/* a page that is there */
#define SLOT		0x200000ull	/* the shared area, and the page that is missing */
#define HIGH_SLOT	0x100000000ull
#define MISSING		(SLOT + PAGE)
#define ALIAS		0x400000ull	/* the same two pages */
#define HUGE		0x400000ull	/* a slot of one huge page */
#define HUGE_SIZE	0x200000
#define HUGE_PAGE	3	/* which 4 KiB of it are touched, and then */
#define OTHER_HUGE_PAGE	7	/* these */
#define BY_TABLE	(0x40000000 + OTHER)	/* what the missing page maps that is a page table */

#define MSR_INT		0x4b564d06	/* MSR_KVM_ASYNC_PF_INT */
#define MSR_PV_EOI	0x4b564d04	/* MSR_KVM_PV_EOI_EN */
#define OTHER_VECTOR	0xf8		/* of the class of READY_VECTOR */
#define READY_VECTOR	0xf3
#define WAKE_ALL	0xffffffffu
#define GIVEN_TOKEN	0x1000	/* by the VMM */
#define EN_CPL3_ONLY	(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define EN_ALWAYS	(EN_CPL3_ONLY | KVM_ASYNC_PF_SEND_ALWAYS)

#ifndef KVM_CAP_DIRTY_LOG_RING
#define KVM_CAP_DIRTY_LOG_RING 192
#define KVM_DIRTY_LOG_PAGE_OFFSET 64
struct kvm_dirty_gfn {
	__u32 flags, slot;
	__u64 offset;
};
#endif
#define RING_ENTRIES	1024

#ifndef KVM_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY 236
struct kvm_pre_fault_memory {
	__u64 gpa, size, flags, padding[5];
};
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif

/* What the guest says on PORT. */
enum said { TOUCHED = NOTHING + 1, TOKEN, READY };

/*
 * The guest touches the page at BX; its shared area is at BP.  It says so when it is told something, and behind a token
 * it waits, with interrupts on, until the page is ready.
 */
#define GUEST(bits, r, error_code, iret) \
	".code" bits "\n" \
	"guest" bits "_writes:\n" \
	"	movl %eax, (%" r "bx)\n" \
	"	jmp 1f\n" \
	"guest" bits "_reads:\n" \
	"	movl (%" r "bx), %eax\n" \
	"1:	movb $1, %al\n" \
	"	outb %al, $0x10\n" \
	"2:	jmp 2b\n" \
	"guest" bits "_pf:\n" \
	"	movb $2, %al\n" \
	"	outb %al, $0x10\n" \
	"	movl $0, 0x6000\n" \
	"	movl $0, (%" r "bp)\n" \
	"	sti\n" \
	"3:	cmpl $0, 0x6000\n" \
	"	je 3b\n" \
	"	add $" error_code ", %" r "sp\n" \
	"	" iret "\n" \
	"guest" bits "_ready:\n" \
	"	movb $3, %al\n" \
	"	outb %al, $0x10\n" \
	"	movl $0, 4(%" r "bp)\n" \
	"	movl $0x4b564d07, %ecx\n"	/* MSR_KVM_ASYNC_PF_ACK */ \
	"	movl $1, %eax\n" \
	"	xorl %edx, %edx\n" \
	"	wrmsr\n" \
	"	movl $0xfee000b0, %eax\n"	/* EOI */ \
	"	movl $0, (%" r "ax)\n" \
	"	movl $1, 0x6000\n" \
	"	" iret "\n"

asm(".pushsection .rodata\n"
    "guest_code:\n"
    GUEST("32", "e", "4", "iretl")
    GUEST("64", "r", "8", "iretq")
    ".code32\n"
    "guest32_paging:\n"
    "	movl %cr0, %eax\n"
    "	orl $0x80000000, %eax\n"
    "	movl %eax, %cr0\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    ".code64\n"
    "guest64_nmi:\n"
    "	sti\n"
    "	nop\n"			/* behind its shadow */
    "	jmp guest64_writes\n"
    "guest64_idle:\n"
    "1:	jmp 1b\n"
    "guest64_calls:\n"
    "	jmp *%rbx\n"
    "guest64_opens:\n"			/* its interrupts */
    "	sti\n"
    "	nop\n"
    "	nop\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest64_other:\n"			/* OTHER_VECTOR */
    "	btrl $0, 0x12000\n"		/* PV EOI: else as ever */
    "	jc 1f\n"
    "	movl $0xfee000b0, %eax\n"
    "	movl $0, (%rax)\n"
    "1:	iretq\n"
    "guest_says:\n"			/* the code that is missing */
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_end:\n"
    ".code16\n"
    "guest_smi:\n"
    "	sti\n"
    "	nop\n"
    "	addr32 movl %eax, (%ebx)\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_smi_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_code[], guest_end[];
extern const char guest32_writes[], guest32_pf[], guest32_ready[], guest32_paging[];
extern const char guest64_writes[], guest64_reads[], guest64_pf[], guest64_ready[], guest64_nmi[], guest64_idle[];
extern const char guest64_calls[], guest64_opens[], guest64_other[], guest_says[], guest_smi[], guest_smi_end[];
#define AT(symbol) (CODE + (uint32_t)((symbol) - guest_code))

static const char *const kind_names[] = {
	"ring1", "paging32", "logged", "rom-page", "pre-fault", "poisoned", "in-nmi", "fetch", "table", "high", "last",
	"unconsumed", "debugged", "dirty-ring", "no-payload", "sync-regs", "smm", "area-forbidden", "pv-eoi", "smm-taken",
	"restored", "mapped-twice", "loaded-irr", "paging-on", "rom-written", "asked-twice", "hole", "aliased", "huge",
	"huge-logged", "zero-page",
};
enum kind {
	RING1, PAGING32, LOGGED, ROM_PAGE, PRE_FAULT, POISONED, IN_NMI, FETCH, TABLE, HIGH, LAST, UNCONSUMED, DEBUGGED,
	DIRTY_RING, NO_PAYLOAD, SYNC_REGS, SMM, AREA_FORBIDDEN, PENDING_EOI, SMM_TAKEN, RESTORED,
	MAPPED_TWICE, LOADED_IRR, PAGING_ON, ROM_WRITTEN, ASKED_TWICE, HOLE, ALIASED, HUGE_ONE, HUGE_LOGGED, ZERO_PAGE,
	KINDS
};

/* How the guest comes by its page. */
static const char *const found_names[] = {
	"told by a token", "told otherwise", "waited for", "halted for", "there at once", "not logged", "a bus error",
	"not asked for", "not mapped ahead", "told late", "given to the VMM",
	"asked for as for a read", "not to be had", "mapped by a small entry",
	"there as it was before",
};
enum found { TOLD, TOLD_ODDLY, WAITED, HALTED, AT_HAND, UNLOGGED, BUS_ERROR, UNKNOWN, UNMAPPED, TOLD_LATE, FOR_VMM,
	     BY_READ, FAILED, SMALL, STALE };
static const enum found right[KINDS] = {
	[ROM_PAGE] = WAITED, [PRE_FAULT] = WAITED, [POISONED] = BUS_ERROR, [SMM] = HALTED, [AREA_FORBIDDEN] = HALTED,
	[SMM_TAKEN] = HALTED, [ROM_WRITTEN] = FOR_VMM, [ASKED_TWICE] = WAITED,
	[HOLE] = FAILED, [ZERO_PAGE] = AT_HAND,
};	/* else TOLD */

static char *slot, *smm_slot, *huge;
static struct kvm_dirty_gfn *ring;
static volatile int bus_error;	/* si_code */
static void *volatile bus_error_at;

/* ---- the guest ---- */

static bool in_rom(enum kind kind)
{
	return kind == ROM_PAGE || kind == ROM_WRITTEN;
}

static bool is_huge(enum kind kind)
{
	return kind == HUGE_ONE || kind == HUGE_LOGGED;
}

/* Whether the shared area does not lie beside the page. */
static bool area_apart(enum kind kind)
{
	return in_rom(kind) || is_huge(kind);
}

static uint32_t word(const struct vm *vm, enum kind kind, int number)
{
	uint32_t value;

	memcpy(&value, (area_apart(kind) ? vm->mem + LOW_AREA : slot) + 4 * number, sizeof(value));
	return value;
}

static void put(struct vm *vm, uint32_t at, uint64_t value)
{
	memcpy(vm->mem + at, &value, sizeof(value));
}

static void fill(struct vm *vm)
{
	memcpy(vm->mem + CODE, guest_code, guest_end - guest_code);
	put(vm, PML4, PDPT | 3);
	put(vm, PDPT, PD_LOW | 3);
	put(vm, PDPT + 3 * 8, PD_LAPIC | 3);
	put(vm, PD_LOW, 0x83);				/* 2 MiB */
	put(vm, PD_LOW + 8, SLOT | 0x83);
	put(vm, PD_LOW + 2 * 8, ALIAS | 0x83);		/* or HUGE */
	put(vm, PD_LAPIC + 0x1f7 * 8, 0xfee00093);	/* not cached */
	put(vm, PD32, 0x83);				/* 4 MiB, and nothing behind it */
	memcpy(vm->mem + PD32 + 0x3fb * 4, &(uint32_t){ 0xfec00093 }, 4);
	put(vm, GDT + 0x18, 0x00afbb000000ffff);	/* CPL 1: code */
	put(vm, GDT + 0x20, 0x00cfb3000000ffff);	/* and data */
	put(vm, GDT + 0x10, 0x00cf93000000ffff);
	put(vm, TSS + 4, STACK);			/* of 64 bits: RSP0 */
	put(vm, PDPT + 8, MISSING | 3);			/* BY_TABLE */
	put(vm, PDPT + 4 * 8, PD_HIGH | 3);
	put(vm, PD_HIGH, HIGH_SLOT | 0x83);
	memcpy(vm->mem + SMI_ENTRY, guest_smi, guest_smi_end - guest_smi);
}

static void gate(struct vm *vm, bool wide, int vector, uint32_t handler)
{
	put(vm, IDT + vector * (wide ? 16 : 8),
	    0x8e0000080000ull | (handler & 0xffff) | (uint64_t)(handler >> 16) << 48);
}

static struct kvm_segment segment(int selector, int type, bool wide)
{
	return (struct kvm_segment){ .selector = selector, .limit = 0xffffffff, .type = type, .present = 1, .s = 1,
				     .dpl = selector & 3, .db = !wide, .l = wide, .g = 1 };
}

static void set_registers(struct vm *vm, enum kind kind)
{
	struct kvm_regs regs = { .rip = AT(guest64_writes), .rsp = STACK, .rflags = 0x202, .rbx = MISSING, .rbp = SLOT };
	bool wide = kind != PAGING32 && kind != PAGING_ON, ring1 = kind == RING1;
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;

	if (!wide)
		regs.rip = AT(guest32_writes);
	else if (in_rom(kind) || kind == ZERO_PAGE)
		regs.rip = AT(guest64_reads);
	else if (kind == IN_NMI || kind == NO_PAYLOAD || kind == SYNC_REGS || kind == RESTORED || kind == LOADED_IRR)
		regs.rip = AT(guest64_idle);
	else if (kind == FETCH)
		regs.rip = AT(guest64_calls);
	else if (kind == PENDING_EOI)
		regs.rip = AT(guest64_opens);
	else if (kind == AREA_FORBIDDEN)
		regs.rip = AT(guest64_idle);
	if (area_apart(kind))
		regs.rbp = LOW_AREA;
	if (is_huge(kind)) {
		regs.rbx = HUGE + HUGE_PAGE * PAGE;
	} else if (kind == HIGH) {
		regs.rbp = HIGH_SLOT;
		regs.rbx = HIGH_SLOT + PAGE;
	} else if (kind == TABLE) {
		regs.rbx = BY_TABLE;
	} else if (kind == PENDING_EOI) {
		regs.rflags = 2;
	}
	if (ring1) {
		regs.rsp = STACK_RING1;
		regs.rflags |= 0x1000;		/* IOPL */
	}
	put(vm, GDT + 0x08, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
	gate(vm, wide, 2, wide ? AT(guest64_nmi) : AT(guest32_paging));
	gate(vm, wide, 14, wide ? AT(guest64_pf) : AT(guest32_pf));
	gate(vm, wide, OTHER_VECTOR, AT(guest64_other));
	gate(vm, wide, READY_VECTOR, wide ? AT(guest64_ready) : AT(guest32_ready));
	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic));
	lapic.regs[0xf0] = 0xff;	/* spurious-interrupt vector, and */
	lapic.regs[0xf1] = 0x01;	/* software enable */
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs = segment(ring1 ? 0x19 : 0x08, 0xb, wide);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(ring1 ? 0x21 : 0x10, 0x3, false);
	sregs.gdt.base = GDT;
	sregs.gdt.limit = 5 * 8 - 1;
	sregs.idt.base = IDT;
	sregs.idt.limit = 256 * 16 - 1;
	sregs.tr = (struct kvm_segment){ .base = TSS, .limit = 0x67, .selector = 0x28, .type = 0xb, .present = 1 };
	sregs.cr0 = kind == PAGING_ON ? 0x11 : 0x80000011;	/* PG, ET, PE */
	sregs.cr3 = wide ? PML4 : PD32;
	sregs.cr4 = wide ? 0x20 : 0x10;		/* PAE, or PSE */
	sregs.efer = wide ? 0x500 : 0;		/* LMA, LME */
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
}

/* From now on nobody has this page until it is provided. */
static void take(struct vm *vm, char *page)
{
	struct uffdio_register range = {
		.range = { (uintptr_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	MUST(madvise(page, PAGE, MADV_DONTNEED));
	MUST(ioctl(vm->uffd, UFFDIO_REGISTER, &range));
}

/* And one behind them that is no guest's, and stays. */
static char *two_pages(void)
{
	char *pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		quit(KSFT_FAIL, "no memory");
	memset(pages, 0, 2 * PAGE);
	return pages;
}

static void reserve_huge(int pages)
{
	FILE *setting = fopen("/proc/sys/vm/nr_hugepages", "w");

	if (!setting)
		return;
	fprintf(setting, "%d\n", pages);
	fclose(setting);
}

/* Two huge pages: one for the guest, which is missing, and one to fill it from. */
static void make_huge(struct vm *vm)
{
	struct uffdio_register range = { .range = { .len = HUGE_SIZE }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	reserve_huge(2);
	huge = mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge == MAP_FAILED)
		quit(KSFT_SKIP, "no huge pages: %s", strerror(errno));
	huge[HUGE_SIZE] = 0;
	vm->missing = huge;
	range.range.start = (uintptr_t)huge;
	if (ioctl(vm->uffd, UFFDIO_REGISTER, &range))
		quit(KSFT_SKIP, "no userfaultfd for huge pages: %s", strerror(errno));
}

static void add_slot(struct vm *vm, uint32_t number, uint64_t gpa, uint64_t size, char *memory, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = number, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)memory,
		.flags = flags,
	};

	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region));
}

/* What the vCPU sees in system management mode: the same memory, but for the two pages. */
static void make_smm(struct vm *vm)
{
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) < 2)
		quit(KSFT_SKIP, "no system management mode");
	smm_slot = two_pages();
	vm->missing = smm_slot + PAGE;
	add_slot(vm, 1 << 16, 0, MEM_SIZE, vm->mem, 0);
	add_slot(vm, 1 << 16 | 1, SLOT, 2 * PAGE, smm_slot, 0);
	MUST(ioctl(vm->vcpu, KVM_SMI, 0));
}

static void make_ring(struct vm *vm)
{
	ring = mmap(NULL, RING_ENTRIES * sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu,
		    (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
	if (ring == MAP_FAILED)
		quit(KSFT_FAIL, "the ring cannot be mapped");
}

static void debug(struct vm *vm)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP };

	debug.arch.debugreg[0] = UNUSED;	/* nothing is executed there */
	debug.arch.debugreg[7] = 0x402;
	MUST(ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug));
}

static void make_vm(struct vm *vm, enum kind kind)
{
	bool logged = kind == LOGGED || kind == HIGH || kind == DIRTY_RING || kind == HUGE_LOGGED;
	bool in_smm = kind == SMM || kind == SMM_TAKEN;
	uint64_t at = kind == HIGH ? HIGH_SLOT : SLOT;
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { kind != NO_PAYLOAD } };

	vm_dirty_ring = kind == DIRTY_RING ? RING_ENTRIES * sizeof(*ring) : 0;
	vm_create(vm, MEM_SIZE, UNUSED, 0);
	MUST(ioctl(vm->fd, KVM_ENABLE_CAP, &payload));
	slot = two_pages();
	vm->missing = slot + PAGE;
	if (in_smm)
		make_smm(vm);
	if (is_huge(kind))
		make_huge(vm);
	else if (kind == ZERO_PAGE)
		MUST(madvise(vm->missing, PAGE, MADV_DONTNEED));
	else if (kind != SMM_TAKEN)
		take(vm, vm->missing);
	if (is_huge(kind))
		add_slot(vm, 1, HUGE, HUGE_SIZE, huge, logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	else
		add_slot(vm, 1, at, 2 * PAGE, slot,
			 logged ? KVM_MEM_LOG_DIRTY_PAGES : in_rom(kind) ? KVM_MEM_READONLY : 0);
	if (kind == ALIASED)
		add_slot(vm, 2, ALIAS, 2 * PAGE, slot, 0);
	fill(vm);
	set_registers(vm, kind);
	if (kind == DIRTY_RING)
		make_ring(vm);
	else if (kind == DEBUGGED)
		debug(vm);
	else if (kind == AREA_FORBIDDEN)
		MUST(mprotect(slot, PAGE, PROT_READ));
	else if (kind == PENDING_EOI)
		set_msr(vm, MSR_PV_EOI, PV_EOI | 1);
	if (in_smm || kind == PENDING_EOI || kind == PAGING_ON)
		return;
	set_msr(vm, MSR_INT, READY_VECTOR);
	set_msr(vm, MSR_EN, (area_apart(kind) ? LOW_AREA : at) | (kind == RING1 ? EN_CPL3_ONLY : EN_ALWAYS));
}

/* The page comes, with what the guest needs there. */
static void bring(struct vm *vm, enum kind kind)
{
	static char content[PAGE] __attribute__((aligned(PAGE)));
	struct uffdio_copy copy = { .dst = (uintptr_t)vm->missing, .src = (uintptr_t)content, .len = PAGE };

	if (is_huge(kind)) {
		copy.src = (uintptr_t)huge + HUGE_SIZE;
		copy.len = HUGE_SIZE;
	}
	if (kind == FETCH)
		memcpy(content, guest_says, guest_end - guest_says);
	else if (kind == TABLE)
		content[0] = (char)0x83;	/* 2 MiB from 0 on */
	if (ioctl(vm->uffd, UFFDIO_COPY, &copy))
		quit(KSFT_FAIL, "UFFDIO_COPY: %s", strerror(errno));
}

/* What the guest says next; NOTHING: it says nothing. */
static int next(struct vm *vm)
{
	if (!ends(vm, PATIENCE_MS))
		return NOTHING;
	if (vm->trouble[0])
		quit(KSFT_FAIL, "the guest does not run%s", vm->trouble);
	return vm->said;
}

/* ---- what is done with it ---- */

static bool logged(struct vm *vm)
{
	uint64_t bits = 0;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = &bits };

	MUST(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	return bits & 2;
}

/* The same of the huge page's. */
static bool huge_logged(struct vm *vm, int page)
{
	static uint64_t bits[HUGE_SIZE / PAGE / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bits };

	MUST(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	return bits[0] >> page & 1;
}

/* How many entries for 2 MiB the VM has; -1: the kernel does not say (before 5.14). */
static int64_t huge_entries(struct vm *vm)
{
	struct stats_header { uint32_t flags, name_size, count, id, desc, data; } header;
	struct stats_desc { uint32_t flags; int16_t exponent; uint16_t size; uint32_t offset, bucket; } desc;
	int fd = ioctl(vm->fd, _IO(KVMIO, 0xce));	/* KVM_GET_STATS_FD */
	int64_t value = -1;
	char name[64];

	if (fd < 0)
		return -1;
	MUST(pread(fd, &header, sizeof(header), 0));
	for (uint32_t n = 0; n < header.count && header.name_size <= sizeof(name); n++) {
		off_t at = header.desc + n * (sizeof(desc) + header.name_size);

		MUST(pread(fd, &desc, sizeof(desc), at));
		MUST(pread(fd, name, header.name_size, at + sizeof(desc)));
		if (!strncmp(name, "pages_2m", header.name_size))
			MUST(pread(fd, &value, sizeof(value), header.data + desc.offset));
	}
	close(fd);
	return value;
}

/* Whether a page of the slot is in the ring of dirty pages. */
static bool in_ring(uint64_t page)
{
	for (int n = 0; n < RING_ENTRIES && ring[n].flags; n++)
		if (ring[n].slot == 1 && ring[n].offset == page)
			return true;
	return false;
}

/* The vCPU has a token, and has not been told that its page is there. */
static enum found behind_token(struct vm *vm, enum kind kind)
{
	struct kvm_sregs sregs;
	uint32_t token;

	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	token = sregs.cr2;
	if (!token || word(vm, kind, 0) != KVM_PV_REASON_PAGE_NOT_PRESENT)
		return TOLD_ODDLY;
	start(vm);
	bring(vm, kind);
	if (next(vm) != READY || word(vm, kind, 1) != token)
		return TOLD_ODDLY;
	if ((kind == HIGH && !logged(vm)) || (kind == DIRTY_RING && !in_ring(1)))
		return UNMAPPED;
	if (kind == HUGE_ONE && !huge_entries(vm))
		return SMALL;
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	return kind == LOGGED && !logged(vm) ? UNLOGGED : TOLD;
}

static void start_at(struct vm *vm, uint32_t rip)
{
	struct kvm_regs regs;

	MUST(ioctl(vm->vcpu, KVM_GET_REGS, &regs));
	regs.rip = rip;
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start(vm);
}

/* The guest writes at this address, and is not told of anything. */
static bool writes_at(struct vm *vm, uint64_t address)
{
	struct kvm_regs regs;

	MUST(ioctl(vm->vcpu, KVM_GET_REGS, &regs));
	regs.rbx = address;
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start_at(vm, AT(guest64_writes));
	return next(vm) == TOUCHED;
}

/* The huge page is there, and the guest has written some of it. */
static enum found written_elsewhere(struct vm *vm)
{
	if (!huge_logged(vm, HUGE_PAGE))
		return UNLOGGED;
	if (!writes_at(vm, HUGE + OTHER_HUGE_PAGE * PAGE))
		return TOLD_ODDLY;
	return huge_logged(vm, OTHER_HUGE_PAGE) ? TOLD : UNLOGGED;
}

/* Nobody can have the page: the vCPU's own thread has to find that out. */
static enum found unmapped(struct vm *vm)
{
	MUST(munmap(vm->missing, PAGE));
	start(vm);
	if (!ends(vm, PATIENCE_MS))
		return HALTED;
	if (!vm->trouble[0])
		return TOLD_ODDLY;
	vm->trouble[0] = 0;
	return FAILED;
}

/*
 * The page of the shared area is missing as well: the vCPU's thread sleeps for it before it has written the flags, and a
 * signal that comes meanwhile takes it out of KVM_RUN with the token pending.
 */
static void leave_with_token(struct vm *vm, bool sync_regs)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)slot, PAGE } };
	struct kvm_vcpu_events events;

	stop(vm);
	take(vm, slot);
	if (sync_regs)
		vm->run->kvm_valid_regs = KVM_SYNC_X86_EVENTS;
	start_at(vm, AT(guest64_writes));
	while (asks_for_page(vm) != vm->tid)	/* the worker asks for its page, sooner or later */
		;
	vm->run->immediate_exit = 1;
	pthread_kill(vm->thread, SIGUSR1);
	MUST(ioctl(vm->uffd, UFFDIO_ZEROPAGE, &zero));
	stop(vm);
	if (vm->said != NOTHING || vm->trouble[0] || word(vm, NO_PAYLOAD, 0) != KVM_PV_REASON_PAGE_NOT_PRESENT)
		quit(KSFT_FAIL, "the signal does not take the vCPU out of KVM_RUN with its token%s", vm->trouble);
	if (sync_regs) {
		vm->run->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;
	} else {
		MUST(ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &events));
		MUST(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events));
	}
	start(vm);
}

/* The page, which it has read, is mapped. */
static enum found written(struct vm *vm)
{
	start_at(vm, AT(guest64_writes));
	if (!ends(vm, PATIENCE_MS))
		return HALTED;
	if (vm->run->exit_reason == KVM_EXIT_MMIO && vm->run->mmio.is_write && vm->run->mmio.phys_addr == MISSING)
		return FOR_VMM;
	return vm->said == TOUCHED ? AT_HAND : TOLD_ODDLY;
}

/* Nobody reads that its own thread asks: who fills the page wakes those whose question is still to be read as well. */
static enum found asked_twice(struct vm *vm)
{
	struct pollfd asked = { .fd = vm->uffd, .events = POLLIN };
	struct kvm_regs regs;

	MUST(ioctl(vm->vcpu, KVM_GET_REGS, &regs));
	regs.rflags = 2;
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start_at(vm, AT(guest64_writes));
	if (poll(&asked, 1, PATIENCE_MS) != 1)
		return TOLD_ODDLY;
	rest(100);	/* it sleeps, interruptibly or not by the kernel's version */
	bring(vm, ASKED_TWICE);
	return next(vm) == TOUCHED ? WAITED : HALTED;
}

/* What the guest has read of the page, but for its lowest byte. */
static uint32_t has_read(struct vm *vm)
{
	struct kvm_regs regs;

	MUST(ioctl(vm->vcpu, KVM_GET_REGS, &regs));
	return (uint32_t)regs.rax & ~0xffu;
}

/* It has been given the zero page, as everybody who reads has: the first to write takes it away from all of them. */
static enum found written_by_vmm(struct vm *vm)
{
	static const uint32_t word = 0x5ec0de00;

	start(vm);
	if (next(vm) != TOUCHED || has_read(vm))
		return TOLD_ODDLY;
	memcpy(vm->missing, &word, sizeof(word));
	start_at(vm, AT(guest64_reads));
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	return has_read(vm) == word ? AT_HAND : STALE;
}

static enum found touched(struct vm *vm, enum kind kind)
{
	struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 0x4400 };
	int said;

	if (kind == UNCONSUMED)
		slot[0] = KVM_PV_REASON_PAGE_NOT_PRESENT;
	start(vm);
	if (kind == IN_NMI || kind == NO_PAYLOAD || kind == SYNC_REGS)
		rest(100);	/* behind its ready handler */
	if (kind == IN_NMI) {
		MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &nmi));
	}
	if (kind == NO_PAYLOAD || kind == SYNC_REGS)
		leave_with_token(vm, kind == SYNC_REGS);
	else if (asks_for_page(vm) == vm->tid) {
		bring(vm, kind);
		if (next(vm) != TOUCHED)
			return TOLD_ODDLY;
		return kind == ROM_WRITTEN ? written(vm) : WAITED;
	}
	said = next(vm);
	if (said == TOKEN) {
		enum found found = kind == ASKED_TWICE ? asked_twice(vm) : behind_token(vm, kind);

		return kind == HUGE_LOGGED && found == TOLD ? written_elsewhere(vm) : found;
	}
	return said == NOTHING ? HALTED : TOLD_ODDLY;
}

static void *pre_fault(void *arg)
{
	struct kvm_pre_fault_memory range = { .gpa = MISSING, .size = PAGE };
	struct vm *vm = arg;

	vm->tid = syscall(SYS_gettid);
	if (ioctl(vm->vcpu, KVM_PRE_FAULT_MEMORY, &range))
		snprintf(vm->trouble, sizeof(vm->trouble), ", KVM_PRE_FAULT_MEMORY: %s", strerror(errno));
	return NULL;
}

/* The guest has its interrupts on, and is told of the wake-all of enabling behind it. */
static enum found asked_by_vmm(struct vm *vm)
{
	enum found found = WAITED;

	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) <= 0)
		return UNKNOWN;
	if (pthread_create(&vm->thread, NULL, pre_fault, vm))
		quit(KSFT_FAIL, "no thread");
	vm->started = true;
	if (asks_for_page(vm) != vm->tid)
		found = TOLD_ODDLY;
	provide_page(vm);
	next(vm);
	start(vm);
	if (next(vm) != READY)
		return TOLD_ODDLY;
	start(vm);
	return next(vm) == TOUCHED ? found : TOLD_ODDLY;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	bus_error = info->si_code;
	bus_error_at = info->si_addr;
}

static enum found poisoned(struct vm *vm)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	int said;

	sigaction(SIGBUS, &action, NULL);
	provide_page(vm);
	*(volatile char *)vm->missing = 1;
	if (madvise(vm->missing, PAGE, MADV_HWPOISON))
		quit(KSFT_SKIP, "MADV_HWPOISON: %s", strerror(errno));
	start(vm);
	said = next(vm);
	if (word(vm, POISONED, 0))
		return TOLD_ODDLY;	/* flags of a token, which need not have been taken yet */
	if (said == NOTHING && bus_error && bus_error_at != vm->missing)
		return TOLD_ODDLY;
	if (said == NOTHING)
		return !vm->started && bus_error == BUS_MCEERR_AR ? BUS_ERROR : HALTED;
	return said == TOUCHED ? AT_HAND : TOLD_ODDLY;
}

/* The page was there, and the guest has written it. */
static enum found taken_away(struct vm *vm, enum kind kind)
{
	struct kvm_sregs sregs;

	provide_page(vm);
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	if (kind == MAPPED_TWICE) {
		MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
		sregs.cr0 ^= 0x10000;	/* WP: 5.10 has other tables for the other mode */
		MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
		start_at(vm, AT(guest64_writes));
		if (next(vm) != TOUCHED)
			return TOLD_ODDLY;
	}
	take(vm, vm->missing);
	start_at(vm, AT(guest64_writes));
	if (ends(vm, PATIENCE_MS) && vm->said == TOUCHED)
		return AT_HAND;
	if (asks_for_page(vm) == vm->tid || next(vm) != TOKEN)
		return TOLD_ODDLY;
	return behind_token(vm, kind);
}

/* The page was there, and the guest has written it by both of its addresses. */
static enum found taken_from_both(struct vm *vm)
{
	uint64_t addresses[] = { ALIAS + PAGE, MISSING };
	enum found found = TOLD;

	provide_page(vm);
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	for (int n = 0; n < 2 && found == TOLD; n++) {
		if (!writes_at(vm, MISSING) || !writes_at(vm, ALIAS + PAGE))
			return TOLD_ODDLY;
		take(vm, vm->missing);
		if (writes_at(vm, addresses[n]))
			return AT_HAND;
		if (vm->said != TOKEN || asks_for_page(vm) == vm->tid)
			return TOLD_ODDLY;
		found = behind_token(vm, ALIASED);
	}
	return found;
}

/* It has no interrupts of KVM's, and no paging in system management mode: it is halted, and not told. */
static enum found halted_in_smm(struct vm *vm)
{
	if (asks_for_page(vm) == vm->tid)
		return WAITED;
	if (!sleeps(vm))
		return TOLD_ODDLY;
	provide_page(vm);
	return next(vm) == TOUCHED ? HALTED : TOLD_ODDLY;
}

static enum found in_smm(struct vm *vm)
{
	start(vm);
	return halted_in_smm(vm);
}

/* The page was there, and its handler of SMIs has written it. */
static enum found taken_in_smm(struct vm *vm)
{
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	take(vm, vm->missing);
	start_at(vm, SMI_ENTRY & 0xffff);
	if (ends(vm, AT_ONCE_MS) && vm->said == TOUCHED)
		return AT_HAND;
	return halted_in_smm(vm);
}

/* It idles, and the VMM makes it a vCPU whose token is pending. */
static enum found restored(struct vm *vm)
{
	struct kvm_vcpu_events events;
	struct kvm_sregs sregs;
	int said;

	start(vm);
	rest(100);	/* behind its ready handler */
	stop(vm);
	MUST(ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &events));
	events.exception.nr = 14;
	events.exception.injected = 0;
	events.exception.pending = 1;
	events.exception.has_error_code = 1;
	events.exception.error_code = 0;
	events.exception_has_payload = 1;
	events.exception_payload = GIVEN_TOKEN;
	events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	MUST(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events));
	start(vm);
	said = next(vm);
	if (said != TOKEN)
		return said == NOTHING ? HALTED : TOLD_ODDLY;
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	return sregs.cr2 == GIVEN_TOKEN ? TOLD : TOLD_ODDLY;
}

/* It idles, and the VMM makes it a vCPU whose ready interrupt waits. */
static enum found loaded_irr(struct vm *vm)
{
	struct kvm_lapic_state lapic;
	int said;

	start(vm);
	rest(100);	/* behind its ready handler */
	stop(vm);
	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic));
	lapic.regs[0x200 + READY_VECTOR / 32 * 16 + READY_VECTOR % 32 / 8] |= 1 << READY_VECTOR % 8;
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
	start(vm);
	said = next(vm);
	return said == READY ? TOLD : said == NOTHING ? HALTED : TOLD_ODDLY;
}

/* It has enabled nothing, so that it is halted. */
static enum found paging_on(struct vm *vm)
{
	struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 0x4400 };

	start(vm);
	if (asks_for_page(vm) == vm->tid)
		return TOLD_ODDLY;
	if (!sleeps(vm))
		return TOLD_ODDLY;
	MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &nmi));	/* whose handler sets it */
	if (ends(vm, PATIENCE_MS))
		return vm->said == TOUCHED ? AT_HAND : TOLD_ODDLY;
	provide_page(vm);
	return next(vm) == TOUCHED ? WAITED : TOLD_ODDLY;
}

/* It waits in vain: an event that cannot be written is dropped. */
static enum found never_told(struct vm *vm)
{
	start(vm);
	return next(vm) == NOTHING ? HALTED : TOLD_ODDLY;
}

/* The wake-all of enabling, behind an interrupt that comes first; once without, so that no page is missing any more. */
static enum found behind_eoi(struct vm *vm)
{
	struct kvm_msi other = { .address_lo = 0xfee00000, .data = 0x4000 | OTHER_VECTOR };

	MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &other));
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	set_registers(vm, PENDING_EOI);
	set_msr(vm, MSR_INT, READY_VECTOR);
	set_msr(vm, MSR_EN, SLOT | EN_ALWAYS);
	MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &other));
	start(vm);
	switch (next(vm)) {
	case READY:
		return word(vm, PENDING_EOI, 1) == WAKE_ALL ? TOLD : TOLD_ODDLY;
	case TOUCHED:
		return TOLD_LATE;
	default:
		return TOLD_ODDLY;
	}
}

static enum found find_out(struct vm *vm, enum kind kind)
{
	switch (kind) {
	case PRE_FAULT:
		return asked_by_vmm(vm);
	case SMM:
		return in_smm(vm);
	case SMM_TAKEN:
		return taken_in_smm(vm);
	case PAGING_ON:
		return paging_on(vm);
	case AREA_FORBIDDEN:
		return never_told(vm);
	case PENDING_EOI:
		return behind_eoi(vm);
	default:
		break;
	}
	start(vm);
	if (next(vm) != READY || word(vm, kind, 1) != WAKE_ALL)
		quit(KSFT_FAIL, "the guest is not told of the wake-all");
	/* it has not touched its page yet, and stands in its handler */
	if (kind == DIRTY_RING && !in_ring(0))
		return UNLOGGED;
	switch (kind) {
	case POISONED:
		return poisoned(vm);
	case LAST:
	case MAPPED_TWICE:
		return taken_away(vm, kind);
	case ALIASED:
		return taken_from_both(vm);
	case HOLE:
		return unmapped(vm);
	case RESTORED:
		return restored(vm);
	case LOADED_IRR:
		return loaded_irr(vm);
	case ZERO_PAGE:
		return written_by_vmm(vm);
	default:
		return touched(vm, kind);
	}
}

static bool test(enum kind kind)
{
	enum found found;
	struct vm vm;
	bool good;

	make_vm(&vm, kind);
	found = find_out(&vm, kind);
	if (vm.worker_reads)
		found = BY_READ;
	good = found == right[kind] || (kind == PAGING_ON && (found == WAITED || found == AT_HAND));
	printf("%s 1 - guest %s: the page is %s\n", good || found == UNKNOWN ? "ok" : "not ok", kind_names[kind],
	       found_names[found]);
	if (is_huge(kind) || kind == HOLE || kind == ZERO_PAGE)
		vm.missing = vm.mem + UNUSED;
	vm_free(&vm);
	munmap(slot, 3 * PAGE);
	if (is_huge(kind)) {
		munmap(huge, 2 * HUGE_SIZE);
		reserve_huge(0);
	}
	return good || found == UNKNOWN;
}

int main(int argc, char **argv)
{
	int kind = 0;

	while (argc == 2 && kind < KINDS && strcmp(argv[1], kind_names[kind]))
		kind++;
	if (argc != 2 || kind == KINDS) {
		fprintf(stderr, "usage: apf_guest_test KIND; kinds:");
		for (kind = 0; kind < KINDS; kind++)
			fprintf(stderr, " %s", kind_names[kind]);
		fprintf(stderr, "\n");
		exit(2);
	}
	plan_tests(1);
	return test(kind) ? KSFT_PASS : KSFT_FAIL;
}
