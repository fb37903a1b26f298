// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is a ready event written to the shared area where it lies now?
 *
 * KVM looks the guest's shared area up when the guest enables asynchronous page faults, and keeps its address in host
 * memory, and its memory slot, for as long as the generation of the slots is the same (kvm_write_guest_offset_cached).
 * Here the VMM changes the area's slot behind the write of MSR_KVM_ASYNC_PF_EN, and before KVM writes the token of the
 * wake-all that this write brings about.  Where it gives the slot other memory, that of before is somebody else's then:
 * who goes on reading there does not find that the token word is free.  And it writes the MSR once more, as it was: that
 * is another wake-all, for a guest that goes on with memory and a state of before (a migration that was called off, a
 * snapshot).
 * Last, the area's memory is plugged in where the guest has looked for it in vain: KVM has noted then that there is no
 * memory (an MMIO SPTE), for that generation of the slots, and the guest has to find the token all the same.
 *
 * With the argument "cleared" it asks for one thing alone: the guest clears the token of an area whose slot has a log of
 * dirty pages, and the log has been read since KVM wrote there.  What maps the page for the guest is writable but for
 * that log (fast_page_fault), and who makes it writable again has to log the page: else a migration brings the token
 * back, and its guest is told of nothing any more.
 *
 * With "loaded" or "based" the vCPU's LAPIC is off when the MSR is written, and while the guest runs behind that.  Then the
 * VMM switches it on, as who loads a state does: by the spurious vector register of KVM_SET_LAPIC, or by IA32_APIC_BASE of
 * KVM_SET_SREGS.  KVM has to look at what waits (KVM_REQ_APF_READY), as if the guest itself had done it.
 *
 * With "high" the area lies above 4 GiB.  With "rom" it lies where the guest may only read, and EN is refused.  With "acked"
 * it is the VMM that writes MSR_KVM_ASYNC_PF_ACK, behind a token that was taken and not acknowledged: what waits is written
 * then, and not before.
 *
 * With "unplugged" the VMM has taken the area's slot away when EN is written once more, as it was: that is refused.  With
 * "enforced" the VMM asks KVM to keep to the features of its CPUID (KVM_CAP_ENFORCE_PV_FEATURE_CPUID) when it has set
 * that already: EN is taken, as KVM_FEATURE_ASYNC_PF is there.
 *
 *	cc -O2 -Wall -pthread -o apf_area_test apf_area_test.c && ./apf_area_test
 *
 * Output is TAP.  Exit code: 0 all as it should be, 1 a token was written elsewhere or nowhere, or not logged, 4
 * skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel, as the other programs do.
 */
#define _GNU_SOURCE
#include "apf_halted.h"

/* Guest physical memory: 64 KiB, used in real mode, and one page in a slot of its own. */
#define MEM_SIZE	0x10000
#define CODE		0x1000
#define STACK		0x4000
#define MISSING		0x8000	/* nobody touches it */
#define AREA		0x10000
#define HIGH_AREA	0x100010000	/* where it lies for HIGH */
#define MSR_INT		0x4b564d06	/* MSR_KVM_ASYNC_PF_INT */
#define MSR_ACK		0x4b564d07	/* MSR_KVM_ASYNC_PF_ACK */
#define EN_INT		9	/* KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT */
#define VECTOR		0xf3
#define WAKE_ALL	0xffffffffu
#define OTHERS		0x5a		/* each byte of what belongs to somebody else */
#define SPIV		0xf0
#define SPIV_ENABLED	0x100

#define APIC_BASE_ENABLED	0x800

enum { RAN = NOTHING + 1 };

asm(".pushsection .rodata\n"
    ".code16\n"
    "guest_code:\n"		/* interrupts are off: all that it does is to be entered */
    "	movb $1, %al\n"
    "1:	outb %al, $0x10\n"
    "	jmp 1b\n"
    "guest_end:\n"
    "guest_reads:\n"		/* a byte of the area's token */
    "2:	movb 4, %al\n"
    "	outb %al, $0x10\n"
    "	jmp 2b\n"
    "guest_reads_end:\n"
    "guest_clears:\n"		/* the area's token, each other time */
    "	movb $1, %al\n"
    "3:	outb %al, $0x10\n"
    "	movw $0, 4\n"
    "	movw $0, 6\n"
    "	outb %al, $0x10\n"
    "	jmp 3b\n"
    "guest_clears_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_code[], guest_end[], guest_reads[], guest_reads_end[];
extern const char guest_clears[], guest_clears_end[];

/*
 * What becomes of the area's slot: nothing, other memory of the host, or that memory with a log of dirty pages.
 * ENABLED: nothing, and EN is written again when the first token was.  PLUGGED: it is made when the guest has read there.
 * CLEARED: as LOGGED, and the guest clears the token.  LOADED, BASED: nothing, and the LAPIC is switched on behind it.
 * HIGH, ROM: nothing, and it lies above 4 GiB, or is read-only.  ACKED: as ENABLED, and the VMM acknowledges.
 * UNPLUGGED: it is deleted, and EN is written again.  ENFORCED: nothing, and EN has to be a feature.
 */
static const char *const change_names[] = {
	"kept", "moved", "logged", "enabled-again", "plugged", "cleared", "loaded", "based",
	"high", "rom", "acked", "unplugged", "enforced",
};
enum change { KEPT, MOVED, LOGGED, ENABLED, PLUGGED, CLEARED, LOADED, BASED, HIGH, ROM, ACKED, UNPLUGGED, ENFORCED, CHANGES };
#define WITHOUT_NAME	CLEARED	/* those before it are tested where no argument is given */

/* What becomes of the token. */
static const char *const written_names[] = { "written there", "written elsewhere", "not logged", "not written", "refused" };
enum written { THERE, ELSEWHERE, NOT_LOGGED, NOT_WRITTEN, REFUSED };

struct area {
	char *first, *second;	/* memory of the host */
};

static uint64_t area_at = AREA;

static void set_slot(struct vm *vm, char *memory, size_t size, uint32_t flags)
{
	struct kvm_userspace_memory_region slot = {
		.slot = 1, .flags = flags, .guest_phys_addr = area_at, .memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot));
}

static void enable_lapic(struct vm *vm)
{
	struct kvm_lapic_state lapic;

	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &lapic));
	*(uint32_t *)(lapic.regs + SPIV) |= SPIV_ENABLED;
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &lapic));
}

static void set_lapic_base(struct vm *vm, bool enabled)
{
	struct kvm_sregs sregs;

	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	sregs.apic_base = (sregs.apic_base & ~(uint64_t)APIC_BASE_ENABLED) | (enabled ? APIC_BASE_ENABLED : 0);
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
}

static char *one_page(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		quit(KSFT_FAIL, "no memory");
	memset(page, 0, PAGE);
	return page;
}

static void make_vm(struct vm *vm, struct area *area, enum change change)
{
	struct kvm_enable_cap enforce = { .cap = 190 /* KVM_CAP_ENFORCE_PV_FEATURE_CPUID */, .args = { 1 } };
	struct kvm_regs regs = { .rip = CODE, .rsp = STACK, .rflags = 2 };
	struct kvm_sregs sregs;

	vm_create(vm, MEM_SIZE, MISSING, 0);
	if (change == ENFORCED && ioctl(vm->vcpu, KVM_ENABLE_CAP, &enforce))
		quit(KSFT_SKIP, "KVM_CAP_ENFORCE_PV_FEATURE_CPUID: %s", strerror(errno));
	if (change == PLUGGED)
		memcpy(vm->mem + CODE, guest_reads, guest_reads_end - guest_reads);
	else if (change == CLEARED)
		memcpy(vm->mem + CODE, guest_clears, guest_clears_end - guest_clears);
	else
		memcpy(vm->mem + CODE, guest_code, guest_end - guest_code);
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.ds.base = AREA;
	sregs.ds.selector = AREA >> 4;
	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vm->vcpu, KVM_SET_REGS, &regs));
	if (change != LOADED)
		enable_lapic(vm);
	if (change == BASED)
		set_lapic_base(vm, false);
	area->first = one_page();
	area->second = one_page();
	if (change != PLUGGED)
		set_slot(vm, area->first, PAGE, change == ROM ? KVM_MEM_READONLY : 0);
}

/* Whether EN takes the area. */
static bool taken(struct vm *vm)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = MSR_EN, .data = area_at | EN_INT },
	};

	return MUST(ioctl(vm->vcpu, KVM_SET_MSRS, &msrs)) == 1;
}

static void do_change(struct vm *vm, struct area *area, enum change change)
{
	if (change == MOVED) {
		set_slot(vm, area->first, 0, 0);
		set_slot(vm, area->second, PAGE, 0);
		memset(area->first, OTHERS, PAGE);
	} else if (change == LOGGED || change == CLEARED) {
		set_slot(vm, area->first, PAGE, KVM_MEM_LOG_DIRTY_PAGES);
	} else if (change == UNPLUGGED) {
		set_slot(vm, area->first, 0, 0);
	}
}

static void run_guest(struct vm *vm)
{
	start(vm);
	if (!ends(vm, PATIENCE_MS) || vm->said != RAN)
		quit(KSFT_FAIL, "the guest does not run%s", vm->trouble);
}

/* What the guest reads in the area; false: it is no memory, and the VMM has to say what is there. */
static bool guest_finds(struct vm *vm, uint8_t *byte)
{
	struct kvm_run *run = vm->run;
	bool memory = true;

	for (;;) {
		MUST(ioctl(vm->vcpu, KVM_RUN, 0));
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT) {
			*byte = *((uint8_t *)run + run->io.data_offset);
			return memory;
		}
		if (run->exit_reason != KVM_EXIT_MMIO)
			quit(KSFT_FAIL, "exit reason %u", run->exit_reason);
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		memory = false;
	}
}

static void plug(struct vm *vm, struct area *area)
{
	uint8_t byte;

	if (guest_finds(vm, &byte))
		quit(KSFT_FAIL, "the guest finds memory where there is none");
	set_slot(vm, area->first, PAGE, 0);
}

static uint32_t token_in(const char *page)
{
	uint32_t token;

	memcpy(&token, page + 4, sizeof(token));
	return token;
}

static bool logged(struct vm *vm)
{
	uint64_t bits = 0;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = &bits };

	MUST(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	return bits & 1;
}

static enum written found_in(struct vm *vm, const struct area *area, enum change change)
{
	const char *now = change == MOVED ? area->second : area->first;
	const char *other = change == MOVED ? area->first : area->second;

	if (token_in(other) == WAKE_ALL)
		return ELSEWHERE;
	if (token_in(now) != WAKE_ALL)
		return NOT_WRITTEN;
	return change != LOGGED || logged(vm) ? THERE : NOT_LOGGED;
}

static enum written cleared(struct vm *vm, struct area *area)
{
	if (token_in(area->first) != WAKE_ALL)
		return NOT_WRITTEN;
	if (!logged(vm))
		return NOT_LOGGED;
	run_guest(vm);
	if (token_in(area->first))
		return NOT_WRITTEN;
	return logged(vm) ? THERE : NOT_LOGGED;
}

/* The first token is taken and not acknowledged, and that of another wake-all waits for it. */
static enum written acked(struct vm *vm, struct area *area)
{
	if (token_in(area->first) != WAKE_ALL)
		return NOT_WRITTEN;
	set_msr(vm, MSR_EN, area_at | EN_INT);
	run_guest(vm);		/* KVM looks, and finds the word occupied */
	memset(area->first, 0, PAGE);
	run_guest(vm);
	if (token_in(area->first))
		return ELSEWHERE;
	set_msr(vm, MSR_ACK, 1);
	run_guest(vm);
	return token_in(area->first) == WAKE_ALL ? THERE : NOT_WRITTEN;
}

static bool test(enum change change)
{
	enum written written;
	struct area area;
	bool seen = true, good, refused;
	uint8_t byte;
	struct vm vm;

	area_at = change == HIGH ? HIGH_AREA : AREA;
	make_vm(&vm, &area, change);
	if (change == PLUGGED)
		plug(&vm, &area);
	for (int n = 0; change == CLEARED && n < 2; n++)
		run_guest(&vm);		/* what maps the page is writable then */
	set_msr(&vm, MSR_INT, VECTOR);
	refused = !taken(&vm);
	do_change(&vm, &area, change);
	if (change == UNPLUGGED)
		refused = !refused && !taken(&vm);
	if (change == PLUGGED)
		seen = guest_finds(&vm, &byte) && byte == 0xff;
	else
		run_guest(&vm);
	if (change == ENABLED && token_in(area.first) == WAKE_ALL) {
		memset(area.first, 0, PAGE);
		set_msr(&vm, MSR_EN, AREA | EN_INT);
		run_guest(&vm);
	}
	if (change == LOADED || change == BASED) {
		if (token_in(area.first))
			quit(KSFT_FAIL, "a token is written while the LAPIC is off");
		if (change == LOADED)
			enable_lapic(&vm);
		else
			set_lapic_base(&vm, true);
		run_guest(&vm);
	}
	if (change == CLEARED)
		written = cleared(&vm, &area);
	else if (change == ACKED)
		written = acked(&vm, &area);
	else if (refused)	/* and nobody writes to what was the area's memory any more */
		written = token_in(area.first) ? ELSEWHERE : REFUSED;
	else
		written = seen ? found_in(&vm, &area, change) : ELSEWHERE;
	good = written == (change == ROM || change == UNPLUGGED ? REFUSED : THERE);
	printf("%s %d - area %s: the wake-all is %s\n", good ? "ok" : "not ok", ++tests_done, change_names[change],
	       written_names[written]);
	vm_free(&vm);
	munmap(area.first, PAGE);
	munmap(area.second, PAGE);
	return good;
}

int main(int argc, char **argv)
{
	bool good = true;

	int change = WITHOUT_NAME;

	while (argc == 2 && change < CHANGES && strcmp(argv[1], change_names[change]))
		change++;
	if (argc > 2 || change == CHANGES) {
		fprintf(stderr, "usage: apf_area_test [cleared | loaded | based | high | rom | acked | unplugged | enforced]\n");
		exit(2);
	}
	if (argc == 2) {
		plan_tests(1);
		good = test(change);
	} else {
		plan_tests(WITHOUT_NAME);
		for (change = 0; change < WITHOUT_NAME; change++)
			good &= test(change);
	}
	return good ? KSFT_PASS : KSFT_FAIL;
}
