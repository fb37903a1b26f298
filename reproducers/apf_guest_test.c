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
 *	pre-fault	it is the VMM that asks for the page (KVM_PRE_FAULT_MEMORY, from 6.11 on): it waits for it itself,
 *			and the guest, which has not touched the page, is told of nothing
 *	poisoned	the page's memory has failed (MADV_HWPOISON): the vCPU's thread gets its SIGBUS, no token
 *	in-nmi		the guest touches it in a handler of an NMI that has switched interrupts on: it is told
 *
 *	cc -O2 -Wall -pthread -o apf_guest_test apf_guest_test.c && ./apf_guest_test ring1
 *
 * Output is TAP.  Exit code: 0 as it should be, 1 not, 4 skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel, as the other programs do; poisoned: CONFIG_MEMORY_FAILURE.
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
#define UNUSED		0x10000	/* nobody touches it */
#define SLOT		0x200000	/* the shared area, and the page that is missing */
#define MISSING		(SLOT + PAGE)

#define MSR_INT		0x4b564d06	/* MSR_KVM_ASYNC_PF_INT */
#define READY_VECTOR	0xf3
#define WAKE_ALL	0xffffffffu
#define EN_CPL3_ONLY	(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define EN_ALWAYS	(EN_CPL3_ONLY | KVM_ASYNC_PF_SEND_ALWAYS)

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
    "guest64_nmi:\n"
    "	sti\n"
    "	nop\n"			/* behind its shadow */
    "	jmp guest64_writes\n"
    "guest64_idle:\n"
    "1:	jmp 1b\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_code[], guest_end[];
extern const char guest32_writes[], guest32_pf[], guest32_ready[];
extern const char guest64_writes[], guest64_reads[], guest64_pf[], guest64_ready[], guest64_nmi[], guest64_idle[];
#define AT(symbol) (CODE + (uint32_t)((symbol) - guest_code))

static const char *const kind_names[] = { "ring1", "paging32", "logged", "rom-page", "pre-fault", "poisoned", "in-nmi" };
enum kind { RING1, PAGING32, LOGGED, ROM_PAGE, PRE_FAULT, POISONED, IN_NMI, KINDS };

/* How the guest comes by its page. */
static const char *const found_names[] = {
	"told by a token", "told otherwise", "waited for", "halted for", "there at once", "not logged", "a bus error",
	"not asked for",
};
enum found { TOLD, TOLD_ODDLY, WAITED, HALTED, AT_HAND, UNLOGGED, BUS_ERROR, UNKNOWN };
static const enum found right[KINDS] = { TOLD, TOLD, TOLD, WAITED, WAITED, BUS_ERROR, TOLD };

static char *slot;
static volatile int bus_error;	/* si_code */

/* ---- the guest ---- */

static uint32_t word(const struct vm *vm, enum kind kind, int number)
{
	uint32_t value;

	memcpy(&value, (kind == ROM_PAGE ? vm->mem + LOW_AREA : slot) + 4 * number, sizeof(value));
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
	put(vm, PD_LAPIC + 0x1f7 * 8, 0xfee00093);	/* not cached */
	put(vm, PD32, 0x83);				/* 4 MiB, and nothing behind it */
	memcpy(vm->mem + PD32 + 0x3fb * 4, &(uint32_t){ 0xfec00093 }, 4);
	put(vm, GDT + 0x18, 0x00afbb000000ffff);	/* CPL 1: code */
	put(vm, GDT + 0x20, 0x00cfb3000000ffff);	/* and data */
	put(vm, GDT + 0x10, 0x00cf93000000ffff);
	put(vm, TSS + 4, STACK);			/* of 64 bits: RSP0 */
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
	bool wide = kind != PAGING32, ring1 = kind == RING1;
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;

	if (kind == PAGING32)
		regs.rip = AT(guest32_writes);
	else if (kind == ROM_PAGE)
		regs.rip = AT(guest64_reads);
	else if (kind == IN_NMI)
		regs.rip = AT(guest64_idle);
	if (kind == ROM_PAGE)
		regs.rbp = LOW_AREA;
	if (ring1) {
		regs.rsp = STACK_RING1;
		regs.rflags |= 0x1000;		/* IOPL */
	}
	put(vm, GDT + 0x08, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
	gate(vm, wide, 2, AT(guest64_nmi));
	gate(vm, wide, 14, wide ? AT(guest64_pf) : AT(guest32_pf));
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
	sregs.cr0 = 0x80000011;			/* PG, ET, PE */
	sregs.cr3 = wide ? PML4 : PD32;
	sregs.cr4 = wide ? 0x20 : 0x10;		/* PAE, or PSE */
	sregs.efer = wide ? 0x500 : 0;		/* LMA, LME */
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
}

static void make_vm(struct vm *vm, enum kind kind)
{
	struct kvm_userspace_memory_region region = {
		.slot = 1, .guest_phys_addr = SLOT, .memory_size = 2 * PAGE,
		.flags = kind == LOGGED ? KVM_MEM_LOG_DIRTY_PAGES : kind == ROM_PAGE ? KVM_MEM_READONLY : 0,
	};
	struct uffdio_register range = { .range.len = PAGE, .mode = UFFDIO_REGISTER_MODE_MISSING };

	vm_create(vm, MEM_SIZE, UNUSED, 0);
	slot = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (slot == MAP_FAILED)
		quit(KSFT_FAIL, "no memory");
	memset(slot, 0, PAGE);
	vm->missing = slot + PAGE;
	range.range.start = (uintptr_t)vm->missing;
	MUST(ioctl(vm->uffd, UFFDIO_REGISTER, &range));
	region.userspace_addr = (uintptr_t)slot;
	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region));
	fill(vm);
	set_registers(vm, kind);
	set_msr(vm, MSR_INT, READY_VECTOR);
	set_msr(vm, MSR_EN, (kind == ROM_PAGE ? LOW_AREA : SLOT) | (kind == RING1 ? EN_CPL3_ONLY : EN_ALWAYS));
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
	provide_page(vm);
	if (next(vm) != READY || word(vm, kind, 1) != token)
		return TOLD_ODDLY;
	start(vm);
	if (next(vm) != TOUCHED)
		return TOLD_ODDLY;
	return kind == LOGGED && !logged(vm) ? UNLOGGED : TOLD;
}

static enum found touched(struct vm *vm, enum kind kind)
{
	struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 0x4400 };
	int said;

	start(vm);
	if (kind == IN_NMI) {
		rest(100);	/* behind its ready handler */
		MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &nmi));
	}
	if (asks_for_page(vm) == vm->tid) {
		provide_page(vm);
		return next(vm) == TOUCHED ? WAITED : TOLD_ODDLY;
	}
	said = next(vm);
	if (said == TOKEN)
		return behind_token(vm, kind);
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
	if (said == NOTHING)
		return !vm->started && bus_error == BUS_MCEERR_AR ? BUS_ERROR : HALTED;
	return said == TOUCHED ? AT_HAND : TOLD_ODDLY;
}

static bool test(enum kind kind)
{
	enum found found;
	struct vm vm;
	bool good;

	make_vm(&vm, kind);
	if (kind != PRE_FAULT) {
		start(&vm);
		if (next(&vm) != READY || word(&vm, kind, 1) != WAKE_ALL)
			quit(KSFT_FAIL, "the guest is not told of the wake-all");
		/* it has not touched its page yet, and stands in its handler */
	}
	found = kind == PRE_FAULT ? asked_by_vmm(&vm) : kind == POISONED ? poisoned(&vm) : touched(&vm, kind);
	good = found == right[kind];
	printf("%s 1 - guest %s: the page is %s\n", good || found == UNKNOWN ? "ok" : "not ok", kind_names[kind],
	       found_names[found]);
	vm_free(&vm);
	munmap(slot, 2 * PAGE);
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
