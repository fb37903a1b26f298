// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Does a vCPU that was in an artificial halt run again after userspace has changed its state?
 *
 * A vCPU that touches a missing page and cannot be told so is halted by KVM until the page is there (apf.halted in
 * arch/x86/kvm/x86.c).  Writing 0 to MSR_KVM_ASYNC_PF_EN, as a VMM does that resets a machine, drops the event that would
 * end the halt.  A kernel that does not end the halt then leaves the vCPU asleep in KVM_RUN for ever.
 *
 *	cc -O2 -Wall -pthread -o apf_halted_ways_test apf_halted_ways_test.c
 *	./apf_halted_ways_test all		# each cause of the halt with each change of the state
 *	./apf_halted_ways_test cpl0 en0		# one of them
 *	./apf_halted_ways_test cpl0 tick	# not among "all": the timer of the local APIC, armed by KVM_SET_LAPIC,
 *	./apf_halted_ways_test off forbidden	# or mprotect: KVM_RUN has to say EFAULT, and once it is undone the vCPU runs,
 *	./apf_halted_ways_test off shadow	# or no halt: in the shadow of STI, which the state that is read has to tell
 *	./apf_halted_ways_test cpl0 nmi-in-nmi	# or a second NMI while the first one's handler runs
 *	./apf_halted_ways_test off kicked	# or a HLT before it that a kick (KVM_HC_KICK_CPU's) ends: the halt has to last
 *	./apf_halted_ways_test cpl0 kick	# or a kick in it: it goes on until the page is there
 *	./apf_halted_ways_test cpl0 kick-told	# or no halt: a kick, and a ready event before the HLT that it has to end
 *	./apf_halted_ways_test cpl0 pv-wait	# or no halt: a HLT with interrupts off, which a kick ends, and no ready interrupt
 *	./apf_halted_ways_test cpl0 window	# or no halt: a ready interrupt waits for STI while the task priority is not 0
 *	./apf_halted_ways_test off read-only	# or memory that is read-only: the worker gets no page, the vCPU's thread waits for it
 *	./apf_halted_ways_test off in-service	# or no halt: a local APIC that has another interrupt in service is loaded
 *	./apf_halted_ways_test cpl0 listed	# or as "migrate", of MSRs only those that KVM_GET_MSR_INDEX_LIST has
 *	./apf_halted_ways_test cpl0 smi		# or an SMI, whose handler returns into the halt
 *	./apf_halted_ways_test cpl0 extint	# or an interrupt of the 8259's, which the local APIC passes on (ExtINT)
 *
 * apf_halted_test.c is the plain case alone; apf_halted.h is what both have in common.
 *
 * Output is TAP.  Exit code: 0 all as it should be, 1 a vCPU never ran again (or otherwise not as it should), 4 skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel: run it as root, or set vm.unprivileged_userfaultfd.
 */
#define _GNU_SOURCE
#include "apf_halted.h"

/* Guest physical memory: 2 MiB, mapped one to one in long mode. */
#define MEM_SIZE	0x200000
#define GDT		0x2000
#define IDT		0x3000
#define AREA		0x4000	/* struct kvm_vcpu_pv_apf_data */
#define CODE		0x5000
#define STACK		0x8000
#define SMI_ENTRY	0x38000	/* SMBASE + 0x8000 */
#define TRAMPOLINE	0x9000	/* where a SIPI starts the vCPU */
#define PML4		0xa000
#define PDPT		0xb000
#define PD_LOW		0xc000
#define PD_LAPIC	0xd000
#define MISSING		0x10000

#define READY_VECTOR	0xf3
#define TICK_VECTOR	0x40
#define TICK_PERIOD	20000000	/* nanoseconds, of a timer that divides by 1 */
#define EN_CPL3_ONLY	(AREA | KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define EN_ALWAYS	(EN_CPL3_ONLY | KVM_ASYNC_PF_SEND_ALWAYS)
#define MSR_INT		0x4b564d06
#define A_KICK		0x4300	/* "remote read" (APIC_DM_REMRD), as KVM_HC_KICK_CPU sends it */

/* What the guest says on PORT. */
enum said { TOUCHED = NOTHING + 1, STARTED_ANEW, GOT_NMI, GOT_SIPI, GOT_TICK, GOT_SMI };

/* The guest's code; it is copied to CODE and runs there (position independent but for fixed addresses). */
asm(".pushsection .rodata\n"
    "guest_touch:\n"			/* touch the page that is missing, say so */
    "	movl 0x10000, %eax\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_sti:\n"			/* the same in the shadow of STI */
    "	sti\n"
    "	movl 0x10000, %eax\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_hlt:\n"			/* the same behind a HLT */
    "	hlt\n"
    "	movl 0x10000, %eax\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_idle:\n"
    "1:	jmp 1b\n"
    "guest_waits:\n"			/* for a kick, and then the same: */
    "	hlt\n"
    "guest_anew:\n"			/* where a reset starts it */
    "	movb $2, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_window:\n"			/* interrupts on: until the token word is clear, and then the same */
    "	sti\n"
    "1:	cmpl $0, 0x4004\n"
    "	jne 1b\n"
    "	jmp guest_anew\n"
    "guest_nmi:\n"
    "	pushq %rax\n"
    "	movb $3, %al\n"
    "	outb %al, $0x10\n"
    "	popq %rax\n"
    "	iretq\n"
    "guest_tick:\n"			/* TICK_VECTOR */
    "	movb $5, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_pf:\n"			/* a token: take it and touch the page again at once */
    "	addq $8, %rsp\n"
    "	movl $0, 0x4000\n"
    "	iretq\n"
    "guest_ready:\n"			/* READY_VECTOR: take the token, acknowledge, EOI */
    "	pushq %rax\n"
    "	pushq %rcx\n"
    "	pushq %rdx\n"
    "	movl $0, 0x4004\n"
    "	movl $0x4b564d07, %ecx\n"
    "	movl $1, %eax\n"
    "	xorl %edx, %edx\n"
    "	wrmsr\n"
    "	movl $0xfee000b0, %eax\n"
    "	movl $0, (%rax)\n"
    "	popq %rdx\n"
    "	popq %rcx\n"
    "	popq %rax\n"
    "	iretq\n"
    "guest_end:\n"
    ".code16\n"
    "guest_sipi:\n"
    "	movb $4, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_sipi_end:\n"
    "guest_smi:\n"
    "	movb $6, %al\n"
    "	outb %al, $0x10\n"
    "	rsm\n"
    "guest_smi_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_touch[], guest_sti[], guest_hlt[], guest_idle[], guest_waits[], guest_anew[], guest_nmi[];
extern const char guest_window[], guest_tick[], guest_pf[], guest_ready[], guest_end[];
extern const char guest_sipi[], guest_sipi_end[], guest_smi[], guest_smi_end[];
#define AT(symbol) (CODE + (uint32_t)((symbol) - guest_touch))

/* Why the vCPU is halted, and how userspace changes its state. */
enum cause { CPL0, OFF, REPEATED, CAUSES };
enum way {
	RESET, EN0, LOADVM, MPSTATE, STOP_CONT, NMI, INIT_SIPI, REPLUG, MIGRATE, TICK, FORBIDDEN, SHADOW, KICKED, IN_SERVICE,
	LISTED, NMI_IN_NMI, KICK_TOLD, KICK, PV_WAIT, READ_ONLY,
	WINDOW, SMI, EXTINT, WAYS
};
#define OF_ALL	TICK	/* those before it are tested by "all" */

static const char *const cause_names[] = { "cpl0", "off", "repeated" };
static const char *const way_names[] = {
	"reset", "en0", "loadvm", "mpstate", "stop-cont", "nmi", "init-sipi", "replug", "migrate", "tick", "forbidden", "shadow",
	"kicked", "in-service", "listed", "nmi-in-nmi", "kick-told", "kick",
	"pv-wait", "read-only", "window", "smi", "extint",
};
static const enum outcome right[] = {
	AT_ONCE, AT_ONCE, AT_ONCE, WITH_PAGE, WITH_PAGE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE,
	AT_ONCE, AT_ONCE, WITH_PAGE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, WITH_PAGE,
	AT_ONCE, WITH_PAGE, AT_ONCE, AT_ONCE, AT_ONCE,
};
/* Registers and local APIC as at the start. */
static struct kvm_lapic_state lapic_at_start;
static struct kvm_sregs sregs_at_start;

static void start_at(struct vm *vm, uint32_t rip)
{
	struct kvm_regs regs = { .rip = rip, .rsp = STACK, .rflags = 0x202 };

	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs_at_start));
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
}

static void gate(struct vm *vm, int vector, uint32_t handler)
{
	uint32_t *entry = (uint32_t *)(vm->mem + IDT) + 4 * vector;

	entry[0] = 0x08 << 16 | (handler & 0xffff);
	entry[1] = (handler & 0xffff0000) | 0x8e00;
}

static struct kvm_segment segment(int selector, int type, bool code)
{
	return (struct kvm_segment){ .selector = selector, .limit = 0xffffffff, .type = type, .present = 1, .s = 1,
				     .db = !code, .l = code, .g = 1 };
}

static void fill(struct vm *vm)
{
	static const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff };

	*(uint64_t *)(vm->mem + PML4) = PDPT | 3;	/* present, writable */
	*(uint64_t *)(vm->mem + PDPT) = PD_LOW | 3;
	*(uint64_t *)(vm->mem + PDPT + 3 * 8) = PD_LAPIC | 3;
	*(uint64_t *)(vm->mem + PD_LOW) = 0x83;		/* 2 MiB */
	*(uint64_t *)(vm->mem + PD_LAPIC + 0x1f7 * 8) = 0xfee00093;	/* not cached */
	memcpy(vm->mem + GDT, gdt, sizeof(gdt));
	memset(vm->mem + AREA, 0, 64);
	memset(vm->mem + STACK - PAGE, 0, PAGE);
	memcpy(vm->mem + CODE, guest_touch, guest_end - guest_touch);
	memcpy(vm->mem + SMI_ENTRY, guest_smi, guest_smi_end - guest_smi);
	memcpy(vm->mem + TRAMPOLINE, guest_sipi, guest_sipi_end - guest_sipi);
	gate(vm, 2, AT(guest_nmi));
	gate(vm, 14, AT(guest_pf));
	gate(vm, TICK_VECTOR, AT(guest_tick));
	gate(vm, READY_VECTOR, AT(guest_ready));
}

/* vCPU 0 is no boot CPU, so that an INIT makes it wait for a SIPI. */
static void make_vm(struct vm *vm)
{
	struct kvm_sregs *sregs = &sregs_at_start;

	vm_create(vm, MEM_SIZE, MISSING, 1);
	fill(vm);
	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic_at_start));
	lapic_at_start.regs[0xf0] = 0xff;	/* spurious-interrupt vector, and */
	lapic_at_start.regs[0xf1] = 0x01;	/* software enable */
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic_at_start));
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, sregs));
	sregs->cs = segment(0x08, 0xb, true);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(0x10, 0x3, false);
	sregs->gdt.base = GDT;
	sregs->gdt.limit = 3 * 8 - 1;
	sregs->idt.base = IDT;
	sregs->idt.limit = 256 * 16 - 1;
	sregs->cr0 = 0x80000011;	/* PG, ET, PE */
	sregs->cr3 = PML4;
	sregs->cr4 = 0x20;		/* PAE */
	sregs->efer = 0x500;		/* LMA, LME */
	start_at(vm, AT(guest_touch));
	set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
}

/* ---- the ways ---- */

/* The timer of the local APIC, as a VMM finds it armed that loads a state. */
static void arm_timer(struct vm *vm)
{
	static const struct { int offset; uint32_t value; } armed[] = {
		{ 0x320, 1 << 17 | TICK_VECTOR },	/* LVT: periodic */
		{ 0x380, TICK_PERIOD }, { 0x390, TICK_PERIOD },		/* initial and current count */
		{ 0x3e0, 0xb },				/* divide by 1 */
	};
	struct kvm_lapic_state lapic;

	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic));
	for (size_t n = 0; n < sizeof(armed) / sizeof(*armed); n++)
		memcpy(lapic.regs + armed[n].offset, &armed[n].value, sizeof(armed[n].value));
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
}

static void write_en(struct vm *vm, enum cause cause)
{
	set_msr(vm, MSR_INT, READY_VECTOR);
	set_msr(vm, MSR_EN, cause == CPL0 ? EN_CPL3_ONLY : cause == REPEATED ? EN_ALWAYS : 0);
}

/* As a VMM resets a vCPU; mp_state: of a boot CPU, or of one that waits for a SIPI. */
static void reset(struct vm *vm, uint32_t mp_state)
{
	struct kvm_vcpu_events events = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING };

	start_at(vm, AT(guest_anew));
	set_msr(vm, MSR_INT, 0);
	set_msr(vm, MSR_EN, 0);
	memset(vm->mem + AREA, 0, 64);
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic_at_start));
	MUST(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events));
	set_mp_state(vm, mp_state);
}

/* The 8259 is as firmware leaves it for an operating system without an IOAPIC: its first input is TICK_VECTOR. */
static void use_8259(struct vm *vm)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	struct kvm_lapic_state lapic;

	MUST(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
	chip.chip.pic.irq_base = TICK_VECTOR;
	chip.chip.pic.imr = 0xfe;
	chip.chip.pic.init_state = 0;
	MUST(ioctl(vm->fd, KVM_SET_IRQCHIP, &chip));
	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic));
	memcpy(lapic.regs + 0x350, &(uint32_t){ 0x700 }, 4);	/* LINT0: ExtINT */
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
}

static void raise_8259(struct vm *vm)
{
	struct kvm_irq_level line = { .irq = 0, .level = 1 };

	MUST(ioctl(vm->fd, KVM_IRQ_LINE, &line));
}

static void send(struct vm *vm, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = data };

	MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
}

/* What the vCPU sees in system management mode is an address space of its own: the same memory. */
static void give_smm_memory(struct vm *vm)
{
	struct kvm_userspace_memory_region slot = {
		.slot = 1 << 16, .memory_size = MEM_SIZE, .userspace_addr = (uintptr_t)vm->mem,
	};

	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot));
}

static void start_by_sipi(struct vm *vm)
{
	send(vm, 0x4500);	/* INIT, assert */
	provide_page(vm);	/* the vCPU waits for the worker before it obeys */
	rest(50);
	send(vm, 0x4600 | TRAMPOLINE >> 12);
}

/* Whether a VMM that saves what KVM says it has to saves this MSR. */
static bool in_list(struct vm *vm, uint32_t index)
{
	struct { struct kvm_msr_list head; uint32_t indices[1024]; } list = { .head.nmsrs = 1024 };

	MUST(ioctl(vm->kvm, KVM_GET_MSR_INDEX_LIST, &list));
	for (uint32_t n = 0; n < list.head.nmsrs; n++)
		if (list.head.indices[n] == index)
			return true;
	return false;
}

/*
 * The guest goes on in a new VM, with the state that a VMM can read: the halt is not among it.  What is read and written,
 * and in which order, is QEMU's (target/i386/kvm/kvm.c: kvm_arch_get_registers, kvm_arch_put_registers), but for what
 * this guest does not use.  listed: the VMM is one that asks KVM which MSRs there are, as QEMU does not for these.
 */
static enum outcome migrated(struct vm *old, bool listed)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entries[2]; } msrs = {
		.head.nmsrs = 2, .entries = { { .index = MSR_INT }, { .index = MSR_EN } },
	};
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	enum outcome found;
	struct vm vm;

	if (listed && !(in_list(old, MSR_INT) && in_list(old, MSR_EN) &&
			ioctl(old->kvm, KVM_CHECK_EXTENSION, KVM_CAP_ASYNC_PF) > 0 &&
			ioctl(old->kvm, KVM_CHECK_EXTENSION, KVM_CAP_ASYNC_PF_INT) > 0))
		return ODD;
	MUST(ioctl(old->vcpu, KVM_GET_VCPU_EVENTS, &events));
	MUST(ioctl(old->vcpu, KVM_GET_MP_STATE, &mp_state));
	MUST(ioctl(old->vcpu, KVM_GET_REGS, &regs));
	MUST(ioctl(old->vcpu, KVM_GET_SREGS, &sregs));
	if (MUST(ioctl(old->vcpu, KVM_GET_MSRS, &msrs)) != 2)
		quit(KSFT_FAIL, "KVM_GET_MSRS gives no EN");
	MUST(ioctl(old->vcpu, KVM_GET_LAPIC, &lapic));

	make_vm(&vm);
	provide_page(old);
	provide_page(&vm);
	memcpy(vm.mem, old->mem, MEM_SIZE);
	MUST(ioctl(vm.vcpu, KVM_SET_LAPIC, &lapic));
	MUST(ioctl(vm.vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vm.vcpu, KVM_SET_REGS, &regs));
	if (MUST(ioctl(vm.vcpu, KVM_SET_MSRS, &msrs)) != 2)
		quit(KSFT_FAIL, "KVM_SET_MSRS takes no EN");
	MUST(ioctl(vm.vcpu, KVM_SET_VCPU_EVENTS, &events));
	MUST(ioctl(vm.vcpu, KVM_SET_MP_STATE, &mp_state));
	start(&vm);
	found = outcome_without_page(&vm, TOUCHED);
	if (vm.trouble[0])
		memcpy(old->trouble, vm.trouble, sizeof(vm.trouble));
	vm_free(&vm);
	return found;
}

/*
 * The process may not read its memory any more when the page comes: the worker gets none, and the touch is an error, not
 * a fault that could become asynchronous again (virt/kvm/kvm_main.c: vma_is_valid).
 */
static enum outcome forbidden(struct vm *vm)
{
	MUST(mprotect(vm->missing, PAGE, PROT_NONE));
	start(vm);
	provide_page(vm);
	if (!ends(vm, PATIENCE_MS)) {
		stop(vm);
		return NEVER;
	}
	if (!strstr(vm->trouble, strerror(EFAULT)))
		return ODD;
	vm->trouble[0] = 0;
	MUST(mprotect(vm->missing, PAGE, PROT_READ | PROT_WRITE));
	start(vm);
	return outcome_without_page(vm, TOUCHED);
}

/* Change the state of the halted vCPU by one of the ways, and see when it runs. */
static enum outcome after(struct vm *vm, enum cause cause, enum way way)
{
	enum outcome found = ODD;
	bool halted;

	if (way != NMI && way != NMI_IN_NMI && way != SMI && way != INIT_SIPI && way != KICK && way != EXTINT)
		stop(vm);
	if (way == RESET || way == EN0 || way == LOADVM || way == REPLUG)
		provide_page(vm);	/* writing EN = 0 waits for the worker */
	switch (way) {
	case RESET:
		reset(vm, KVM_MP_STATE_RUNNABLE);
		start(vm);
		found = outcome_without_page(vm, STARTED_ANEW);
		break;
	case EN0:
		set_msr(vm, MSR_EN, 0);
		start(vm);
		found = outcome_without_page(vm, TOUCHED);
		break;
	case LOADVM:	/* QEMU's: a reset, then the state of the snapshot, which has EN as the guest had set it */
		reset(vm, KVM_MP_STATE_RUNNABLE);
		write_en(vm, cause);
		set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
		start(vm);
		found = outcome_without_page(vm, STARTED_ANEW);
		break;
	case MPSTATE:
		set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
		/* fall through */
	case STOP_CONT:
		start(vm);
		found = outcome_of(vm, TOUCHED);
		break;
	case NMI:
	case NMI_IN_NMI:
		send(vm, 0x4400);	/* KVM_NMI would wait until the vCPU leaves KVM_RUN */
		found = outcome_without_page(vm, GOT_NMI);
		if (found == AT_ONCE && way == NMI_IN_NMI) {
			send(vm, 0x4400);	/* waits for the IRET of the first */
			start(vm);
			found = outcome_without_page(vm, GOT_NMI);
		}
		if (found != AT_ONCE)
			break;
		start(vm);	/* its handler returns to the touch */
		if (outcome_of(vm, TOUCHED) != WITH_PAGE)
			found = ODD;
		break;
	case SMI:
		give_smm_memory(vm);
		send(vm, 0x4200);
		found = outcome_without_page(vm, GOT_SMI);
		if (found != AT_ONCE)
			break;
		start(vm);	/* its RSM returns to the touch */
		if (outcome_of(vm, TOUCHED) != WITH_PAGE)
			found = ODD;
		break;
	case REPLUG:
		reset(vm, KVM_MP_STATE_UNINITIALIZED);
		start(vm);
		rest(50);
		/* fall through */
	case INIT_SIPI:
		start_by_sipi(vm);
		found = outcome_without_page(vm, GOT_SIPI);
		break;
	case MIGRATE:
	case LISTED:
		found = migrated(vm, way == LISTED);
		break;
	case TICK:	/* its handler does not return */
		arm_timer(vm);
		start(vm);
		found = outcome_of(vm, GOT_TICK);
		break;
	case EXTINT:	/* nor does this */
		raise_8259(vm);
		found = outcome_of(vm, GOT_TICK);
		break;
	case FORBIDDEN:
		found = forbidden(vm);
		break;
	case KICK:
		send(vm, A_KICK);
		halted = sleeps(vm);
		found = outcome_of(vm, TOUCHED);
		if (found == WITH_PAGE && !halted)
			found = AGAIN;
		break;
	default:	/* of without_halt */
		break;
	}
	return found;
}

/*
 * No halt: the vCPU's own thread waits for the page.  A VMM that gets the vCPU then reads that it stands in the shadow, and
 * writes that back.
 */
static enum outcome in_shadow(struct vm *vm)
{
	struct kvm_regs regs = { .rip = AT(guest_sti), .rsp = STACK, .rflags = 2 };
	struct kvm_vcpu_events events;

	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start(vm);
	if (asks_for_page(vm) != vm->tid)
		return ODD;
	vm->run->immediate_exit = 1;
	pthread_kill(vm->thread, SIGUSR1);
	provide_page(vm);
	stop(vm);
	if (vm->said != NOTHING)
		return ODD;
	for (int n = 0; n < 2; n++) {
		MUST(ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &events));
		if (!events.interrupt.shadow)
			return NEVER;
		events.flags = KVM_VCPUEVENT_VALID_SHADOW;
		MUST(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events));
	}
	start(vm);
	return outcome_without_page(vm, TOUCHED);
}

/*
 * What a kick asks for (pv.pv_unhalted in arch/x86/kvm/x86.c) is over with the HLT that it ends; else no halt of the vCPU
 * lasts any more, and it asks for its page again and again.
 */
static enum outcome behind_kick(struct vm *vm)
{
	start_at(vm, AT(guest_anew));
	start(vm);	/* and is told of the wake-all of enabling, which takes the kick away from 6.15 on */
	if (outcome_without_page(vm, STARTED_ANEW) != AT_ONCE)
		return ODD;
	start_at(vm, AT(guest_hlt));
	send(vm, A_KICK);
	start(vm);
	return still_halted(vm) ? outcome_of(vm, TOUCHED) : ODD;
}

/*
 * No halt.  A kick ends the HLT that comes behind it, also where the vCPU, with its interrupts off as one that waits for a
 * lock (pv_wait), is told between the two that a page is ready: here of the wake-all of enabling.
 */
static enum outcome kick_told(struct vm *vm)
{
	struct kvm_regs regs = { .rip = AT(guest_waits), .rsp = STACK, .rflags = 2 };

	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	send(vm, A_KICK);
	start(vm);
	return outcome_without_page(vm, STARTED_ANEW);
}

/*
 * No halt.  A vCPU that waits for a lock with its interrupts off (pv_wait) sleeps in its HLT also where a ready interrupt
 * waits for it, here that of enabling, and whoever kicks it wakes it.
 */
static enum outcome waits_for_kick(struct vm *vm)
{
	struct kvm_regs regs = { .rip = AT(guest_waits), .rsp = STACK, .rflags = 2 };

	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start(vm);
	if (ends(vm, AT_ONCE_MS) || !sleeps(vm))
		return ODD;
	send(vm, A_KICK);
	return outcome_without_page(vm, STARTED_ANEW);
}

/*
 * No halt.  The ready interrupt of enabling waits until interrupts are on, which the task priority does not prevent: it is
 * of a class that is above it.
 */
static enum outcome behind_sti(struct vm *vm)
{
	struct kvm_regs regs = { .rip = AT(guest_window), .rsp = STACK, .rflags = 2 };
	struct kvm_sregs sregs = sregs_at_start;

	sregs.cr8 = 2;
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	start(vm);
	return outcome_without_page(vm, STARTED_ANEW);
}

/*
 * The process may only read its memory: the worker, which asks for the page as for a write, is refused at once
 * (mm/gup.c:check_vma_flags), and asks nobody for it; the vCPU's own thread does, and waits.
 */
static enum outcome read_only(struct vm *vm)
{
	MUST(mprotect(vm->missing, PAGE, PROT_READ));
	start(vm);
	return asks_for_page(vm) == vm->tid ? outcome_of(vm, TOUCHED) : ODD;
}

/*
 * No halt.  The vCPU has TICK_VECTOR in service, and its VMM loads a state that has an interrupt of a lower priority in
 * service in its place: TICK_VECTOR is delivered again.
 */
static enum outcome in_service(struct vm *vm)
{
	struct kvm_lapic_state lapic = lapic_at_start;

	start_at(vm, AT(guest_idle));
	start(vm);
	send(vm, 0x4000 | TICK_VECTOR);
	if (outcome_without_page(vm, GOT_TICK) != AT_ONCE)
		return ODD;
	lapic.regs[0x110] = 1;	/* in service: vector 0x20 */
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
	start_at(vm, AT(guest_idle));
	start(vm);
	send(vm, 0x4000 | TICK_VECTOR);
	return outcome_without_page(vm, GOT_TICK);
}

/* The ways that change no halted vCPU. */
static enum outcome (*const without_halt[WAYS])(struct vm *vm) = {
	[SHADOW] = in_shadow, [KICKED] = behind_kick, [IN_SERVICE] = in_service, [KICK_TOLD] = kick_told,
	[PV_WAIT] = waits_for_kick, [READ_ONLY] = read_only, [WINDOW] = behind_sti,
};

static bool test(enum cause cause, enum way way)
{
	enum outcome found;
	struct vm vm;
	bool good;

	make_vm(&vm);
	if (cause != OFF)
		write_en(&vm, cause);
	if (way == EXTINT)
		use_8259(&vm);
	if (without_halt[way]) {
		found = without_halt[way](&vm);
	} else {
		start(&vm);
		wait_for_halt(&vm);
		found = after(&vm, cause, way);
	}
	good = tell(&vm, cause_names[cause], way_names[way], found, right[way]);
	vm_free(&vm);
	return good;
}

static int find(const char *word, const char *const *names, int count)
{
	for (int n = 0; n < count; n++)
		if (!strcmp(word, names[n]))
			return n;
	fprintf(stderr, "usage: apf_halted_ways_test all | CAUSE WAY; causes: cpl0 off repeated; ways:");
	for (int n = 0; n < WAYS; n++)
		fprintf(stderr, " %s", way_names[n]);
	fprintf(stderr, "\n");
	exit(2);
}

int main(int argc, char **argv)
{
	bool good = true;

	if (argc == 3) {
		int cause = find(argv[1], cause_names, CAUSES);
		int way = find(argv[2], way_names, WAYS);

		plan_tests(1);
		good = test(cause, way);
	} else if (argc == 2 && !strcmp(argv[1], "all")) {
		plan_tests(CAUSES * OF_ALL);
		for (int way = 0; way < OF_ALL; way++)
			for (int cause = 0; cause < CAUSES; cause++)
				good &= test(cause, way);
	} else {
		find("", way_names, WAYS);
	}
	return good ? KSFT_PASS : KSFT_FAIL;
}
