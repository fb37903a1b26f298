// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Does a vCPU that was in an artificial halt run again after a reset?
 *
 * A vCPU that touches a missing page and cannot be told so is halted by KVM until the page is there (apf.halted in
 * arch/x86/kvm/x86.c).  Writing 0 to MSR_KVM_ASYNC_PF_EN, as a VMM does that resets a machine, drops the event that would
 * end the halt.  A kernel that does not end the halt then leaves the vCPU asleep in KVM_RUN for ever.
 *
 *	cc -O2 -Wall -pthread -o apf_halted_test apf_halted_test.c && ./apf_halted_test
 *
 * Output is TAP.  Exit code: 0 all as it should be, 1 a vCPU never ran again (or otherwise not as it should), 4 skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel: run it as root, or set vm.unprivileged_userfaultfd.
 *
 * apf_halted.h has the virtual machine and its thread; apf_halted_ways_test.c has more causes and changes.
 */
#define _GNU_SOURCE
#include "apf_halted.h"

/* Guest physical memory: 64 KiB, used in real mode.  The guest enables nothing, so that each missing page is a halt. */
#define MEM_SIZE	0x10000
#define CODE		0x1000
#define STACK		0x4000
#define MISSING		0x8000

/* What the guest says on PORT. */
enum { TOUCHED = NOTHING + 1, STARTED_ANEW };

asm(".pushsection .rodata\n"
    ".code16\n"
    "guest_touch:\n"		/* touch the page that is missing, say so */
    "	movb 0x8000, %al\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "guest_anew:\n"		/* where a reset starts it */
    "	movb $2, %al\n"
    "	outb %al, $0x10\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_touch[], guest_anew[], guest_end[];

/*
 * What userspace does to the halted vCPU: a reset (registers, MSR, KVM_SET_MP_STATE), or the MSR alone.  STOP_CONT, out of
 * KVM_RUN and in again, does no harm on any kernel.
 */
static const char *const way_names[] = { "stop-cont", "reset", "en0" };
enum way { STOP_CONT, RESET, EN0, WAYS };

static void start_at(struct vm *vm, const char *code)
{
	struct kvm_regs regs = { .rip = CODE + (code - guest_touch), .rsp = STACK, .rflags = 0x202 };

	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
}

static void make_vm(struct vm *vm)
{
	struct kvm_sregs sregs;

	vm_create(vm, MEM_SIZE, MISSING, 0);
	memcpy(vm->mem + CODE, guest_touch, guest_end - guest_touch);
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
	start_at(vm, guest_touch);
}

/* Change the state of the halted vCPU, and see when it runs. */
static enum outcome after(struct vm *vm, enum way way)
{
	stop(vm);
	if (way != STOP_CONT) {
		provide_page(vm);	/* the MSR waits for the worker */
		set_msr(vm, MSR_EN, 0);
	}
	if (way == RESET)
		start_at(vm, guest_anew);	/* and KVM_SET_MP_STATE */
	start(vm);
	if (way == STOP_CONT)
		return outcome_of(vm, TOUCHED);
	return outcome_without_page(vm, way == RESET ? STARTED_ANEW : TOUCHED);
}

int main(void)
{
	bool good = true;

	plan_tests(WAYS);
	for (int way = 0; way < WAYS; way++) {
		struct vm vm;

		make_vm(&vm);
		start(&vm);
		wait_for_halt(&vm);
		good &= tell(&vm, "off", way_names[way], after(&vm, way), way == STOP_CONT ? WITH_PAGE : AT_ONCE);
		vm_free(&vm);
	}
	return good ? KSFT_PASS : KSFT_FAIL;
}
