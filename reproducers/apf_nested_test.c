// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is L1 told of an asynchronous page fault of its L2?
 *
 * An L1 that sets KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT is owed a #PF VM-Exit, whatever it intercepts, for each page of its
 * L2 that the host has to fetch: a token.  A kernel that loses the VM-Exit, or makes it a #PF of L2, leaves flags = 1
 * behind in the shared area, and L1 takes its next ordinary #PF for "page not present": a Linux L1 panics with "Host
 * injected async #PF in kernel mode", or a task of it sleeps for ever.
 *
 *	cc -O2 -Wall -pthread -o apf_nested_test apf_nested_test.c && ./apf_nested_test
 *
 * With the argument "exit" it asks for one thing alone: L1 has a token of its own, and runs its L2, when the page comes and
 * an interrupt for L1 with it, while L2 is halted.  The interrupt ends L2 before the vCPU has looked for completions
 * (vcpu_block), and that look may not be forgotten.
 *
 * With the argument "inject" L1 injects a #PF into its L2, as it does that hands a token of its own on, and an interrupt
 * for L1 waits already at the VMRUN.  It ends L2, but not before L2 has been given the #PF.
 *
 * With the argument "unpaged" L2 runs without paging: L1 is told all the same, as it is L1 that has to take the exit.
 *
 * With the argument "acked" L2 zeroes the token word and acknowledges, as L1 does not intercept that MSR, and a second
 * wake-all waits: an ACK is one whoever writes it.
 *
 * With the argument "shadow" L2 touches the page right behind its STI, and L1 intercepts interrupts: what ends L2 does not
 * wait for the end of that shadow, so that the vCPU is halted, and does not fetch the page itself.
 *
 * With the argument "unmapped" L1 takes the page out of its nested tables while L2 is halted for it, and L2 goes on
 * elsewhere: the page that is mapped for its ready event is none then, and nobody has asked for it, so that L1 is told of
 * nothing.
 *
 * With the argument "own-fault" L2 makes a #PF of its own behind the token, one that KVM finds (INS into a page that is not
 * there), and L1, which intercepts it, is told of its address, and not of a token once more.
 *
 * With the argument "nmi" an NMI comes while the token is pending: L1, which intercepts both, is told of the token first.
 *
 * Output is TAP.  Exit code: 0 all as it should be, 1 a token was not told (or otherwise not as it should), 4 skipped.
 * Needs an AMD processor with nested KVM (kvm_amd.nested=1) and userfaultfd for faults of the kernel: run it as root, or
 * set vm.unprivileged_userfaultfd.
 *
 * L1 is four instructions: VMRUN, say so on a port, again.  All that it would look at (the VMCB, the shared area) is read
 * here, in its memory.  The page that L2 touches is one that userfaultfd has not provided yet.  The shared area can be
 * such a page, too: then the vCPU sleeps in the middle of setting up the token, and a signal that comes meanwhile takes
 * it out of KVM_RUN before L1 is told, every time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KSFT_PASS 0
#define KSFT_FAIL 1
#define KSFT_SKIP 4

/* Guest physical memory: 2 MiB, mapped one to one for L1 and L2 by one large page. */
#define MEM_SIZE	0x200000
#define PAGE		0x1000
#define CODE		0x1000
#define L1_STACK	0x4000
#define L2_STACK	0x5000
#define GDT		0x6000
#define IDT		0x7000
#define PML4		0x8000
#define PDPT		0x9000
#define PD		0xa000
#define VMCB		0xb000
#define HSAVE		0xc000
#define AREA		0xd000		/* shared with KVM: u32 flags, u32 token */
#define NPML4		0x10000		/* L1's nested tables, where it has some */
#define NPDPT		0x11000
#define NPD		0x12000
#define NPT		0x13000
#define MISSING		0x100000
#define L2_CR2		0x1234000	/* what L2 puts there, as a fault of its own would; a token is none */
#define OLD_CR2		0x4321000	/* what it has there before */

#define HELLO_PORT	0x10
#define EXIT_PORT	0x11
#define L2_PORT		0x12
#define IN_PORT		0x13
#define NOWHERE		0x40000000	/* for L1 and its L2 */
#define PATIENCE_MS	3000
#define VECTOR		0xf3
#define MSI_VECTOR	0x40

#define MSR_ACK		0x4b564d07
#define MSR_INT		0x4b564d06
#define MSR_EN		0x4b564d02
#define MSR_HSAVE	0xc0010117
#define EN_FLAGS	0xf		/* enabled, at CPL 0 too, as a #PF VM-Exit, ready as an interrupt */
#define FEATURES_LEAF	0x40000001
#define FEATURE_VMEXIT	(1u << 10)

/* AMD64 Architecture Programmer's Manual vol. 2, appendices B and C */
#define EXIT_PF		0x4e
#define EXIT_INTR	0x60
#define EXIT_NMI	0x61
#define EXIT_HLT	0x78
#define EXIT_VMMCALL	0x81

asm(".pushsection .rodata\n"
    ".code64\n"
    "code_l1:\n"
    "	outb %al, $0x10\n"
    "1:	movl $0xb000, %eax\n"
    "	vmrun %rax\n"
    "	outb %al, $0x11\n"
    "	jmp 1b\n"
    "code_l2:\n"		/* touch the page that is missing, and stop */
    "	movl $0x1234000, %eax\n"
    "	movq %rax, %cr2\n"
    "code_l2_touches:\n"
    "	movb 0x100000, %al\n"
    "	hlt\n"
    "code_l2_pf:\n"		/* L2's handler of #PF: it never makes one of its own */
    "	vmmcall\n"
    "code_touch:\n"		/* another L1: it touches the page itself */
    "	outb %al, $0x10\n"
    "	sti\n"
    "	nop\n"
    "	movb 0x100000, %al\n"
    "code_touch_pf:\n"		/* its token: the page is not there; go on with an L2 */
    "	movl $0, 0xd000\n"
    "	sti\n"
    "2:	movl $0xb000, %eax\n"
    "	vmrun %rax\n"
    "	outb %al, $0x11\n"
    "	jmp 2b\n"
    "code_l2_says:\n"		/* its L2, whose HLT is the host's */
    "	outb %al, $0x12\n"
    "	hlt\n"
    "	jmp code_l2_says\n"
    "code_l2_acks:\n"		/* another L2 */
    "	movl $0, 0xd004\n"
    "	movl $0x4b564d07, %ecx\n"
    "	movl $1, %eax\n"
    "	xorl %edx, %edx\n"
    "	wrmsr\n"
    "	outb %al, $0x12\n"
    "code_l2_opens:\n"		/* another L2, whose interrupts are off */
    "	sti\n"
    "	movb 0x100000, %al\n"
    "	outb %al, $0x12\n"
    "code_l2_ins:\n"		/* another L2 */
    "	movl $0x40000000, %edi\n"
    "	movl $0x13, %edx\n"
    "	insb\n"
    "	hlt\n"
    "code_end:\n"
    ".popsection\n");
extern const char code_l1[], code_l2[], code_l2_touches[], code_l2_pf[], code_end[];
extern const char code_touch[], code_touch_pf[], code_l2_says[], code_l2_acks[], code_l2_opens[], code_l2_ins[];
#define AT(symbol) (CODE + (uint64_t)((symbol) - code_l1))

/*
 * What happens between the token and the next entry: nothing, KVM_RUN is left and called again, or the VMM also reads the
 * vCPU's events and writes them back, as for a snapshot, a migration or a monitor's look at the registers.  EXIT: an exit
 * of an L2 to L1, where the token is L1's own and its page has come.  INJECT: an interrupt for L1, where it is L1 that
 * gives its L2 a token.  UNPAGED: nothing, and CR0.PG of L2, whose #PF L1 intercepts, is 0.  ACKED: L2 acknowledges.
 * SHADOW, UNMAPPED: there is no token, as L1 has not enabled anything.  OWN_FAULT: as STATE, and what comes behind it.
 * NMI: as SIGNAL, and an NMI comes meanwhile.
 */
static const char *const between_names[] = { "nothing", "signal", "state", "exit", "inject", "unpaged", "acked", "shadow",
						"unmapped", "own-fault", "nmi" };
enum between { NOTHING, SIGNAL, STATE, EXIT, INJECT, UNPAGED, ACKED, SHADOW, UNMAPPED, OWN_FAULT, NMI, BETWEENS };
#define WITHOUT_NAME	EXIT	/* those before it are tested where no argument is given */
/* What L1 intercepts does not matter to a token. */
static const char *const intercept_names[] = { "no-intercept", "intercept" };
static const char *const outcome_names[] = { "told to L1", "left behind", "given to L2", "odd",
						"a halt in its place" };
enum outcome { TOLD, LEFT, TO_L2, ODD, HALT };

static int kvm, vm, vcpu, uffd;
static char *mem;
static struct kvm_run *run;
static struct kvm_lapic_state quiet;
static pthread_t thread;
static volatile pid_t tid;
static volatile int failed;		/* errno of KVM_RUN */

#define MUST(call) ({ \
	long _r = (call); \
	if (_r < 0) { \
		printf("Bail out! %s: %s\n", #call, strerror(errno)); \
		exit(KSFT_FAIL); \
	} \
	_r; })

static void skip(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	exit(KSFT_SKIP);
}

static void bail_out(const char *why)
{
	printf("Bail out! %s\n", why);
	exit(KSFT_FAIL);
}

static void write_msr(uint32_t index, uint64_t data)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = index, .data = data },
	};

	if (MUST(ioctl(vcpu, KVM_SET_MSRS, &msrs)) != 1)
		bail_out("an MSR is refused");
}

static void put(uint32_t at, int bytes, uint64_t value)
{
	memcpy(mem + at, &value, bytes);
}

static uint64_t get(uint32_t at, int bytes)
{
	uint64_t value = 0;

	memcpy(&value, mem + at, bytes);
	return value;
}

/* ---- pages that userfaultfd provides ---- */

static void open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);	/* else poll does not wait */
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip("userfaultfd for faults of the kernel is not to be had");
}

static void make_missing(uint32_t gpa)
{
	struct uffdio_register range = {
		.range = { (uintptr_t)mem + gpa, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	MUST(madvise(mem + gpa, PAGE, MADV_DONTNEED));
	MUST(ioctl(uffd, UFFDIO_REGISTER, &range));
}

static void provide(uint32_t gpa)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)mem + gpa, PAGE } };

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) && errno != EEXIST)
		bail_out("UFFDIO_ZEROPAGE fails");
}

/* Until this page is asked for: by the vCPU's own thread, or by another. */
static void wait_for_fault(uint32_t gpa, bool by_vcpu)
{
	struct pollfd asked = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	do {
		if (poll(&asked, 1, 30000) != 1 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			bail_out("a page was never asked for");
		if (msg.arg.pagefault.address == (uintptr_t)mem + MISSING &&
		    msg.arg.pagefault.feat.ptid == (uint32_t)tid)
			skip("the vCPU's own thread asks for the page: no asynchronous page faults");
	} while (msg.arg.pagefault.address != (uintptr_t)mem + gpa ||
		 (msg.arg.pagefault.feat.ptid == (uint32_t)tid) != by_vcpu);
}

/* ---- the machine ---- */

static void set_cpuid(void)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { .head.nent = 256 };
	bool svm = false, told = false;

	MUST(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	for (unsigned n = 0; n < cpuid.head.nent; n++) {
		svm |= cpuid.entries[n].function == 0x80000001 && cpuid.entries[n].ecx & 1u << 2;
		told |= cpuid.entries[n].function == FEATURES_LEAF && cpuid.entries[n].eax & FEATURE_VMEXIT;
	}
	if (!svm)
		skip("no nested SVM");
	if (!told)
		skip("no KVM_FEATURE_ASYNC_PF_VMEXIT");
	MUST(ioctl(vcpu, KVM_SET_CPUID2, &cpuid));
}

static void segment(uint32_t at, uint16_t selector, uint16_t attributes, uint32_t limit, uint64_t base)
{
	put(at, 2, selector);
	put(at + 2, 2, attributes);
	put(at + 4, 4, limit);
	put(at + 8, 8, base);
}

/* L2 shares L1's address space, descriptors and interrupt controller. */
static void make_vmcb(const struct kvm_sregs *l1, bool intercept)
{
	put(VMCB + 0x008, 4, intercept ? 1u << 14 : 0);
	put(VMCB + 0x00c, 4, 1u << 0 | 1u << 24);	/* INTR, HLT */
	put(VMCB + 0x010, 4, 1u << 0 | 1u << 1);	/* VMRUN, VMMCALL */
	put(VMCB + 0x058, 4, 1);			/* ASID */
	segment(VMCB + 0x400, 0x10, 0xc93, -1, 0);	/* ES */
	segment(VMCB + 0x410, 0x08, 0xa9b, -1, 0);	/* CS: 64 bits */
	segment(VMCB + 0x420, 0x10, 0xc93, -1, 0);	/* SS */
	segment(VMCB + 0x430, 0x10, 0xc93, -1, 0);	/* DS */
	segment(VMCB + 0x460, 0, 0, l1->gdt.limit, l1->gdt.base);
	segment(VMCB + 0x480, 0, 0, l1->idt.limit, l1->idt.base);
	put(VMCB + 0x4d0, 8, l1->efer);
	put(VMCB + 0x548, 8, l1->cr4);
	put(VMCB + 0x550, 8, l1->cr3);
	put(VMCB + 0x558, 8, l1->cr0);
	put(VMCB + 0x560, 8, 0x400);			/* DR7 */
	put(VMCB + 0x568, 8, 0xffff0ff0);		/* DR6 */
	put(VMCB + 0x570, 8, 0x202);			/* IF: else no page fault is asynchronous */
	put(VMCB + 0x578, 8, CODE + (code_l2 - code_l1));
	put(VMCB + 0x5d8, 8, L2_STACK);
	put(VMCB + 0x640, 8, OLD_CR2);
}

/* An L2 of 32 bits without paging; its two instructions are the same ones there. */
static void switch_paging_off(void)
{
	segment(VMCB + 0x410, 0x08, 0xc9b, -1, 0);
	put(VMCB + 0x4d0, 8, 1 << 12);			/* EFER: SVME */
	put(VMCB + 0x548, 8, 0);
	put(VMCB + 0x550, 8, 0);
	put(VMCB + 0x558, 8, 0x11);
}

static void make_memory(void)
{
	uint64_t handler = CODE + (code_l2_pf - code_l1);

	memcpy(mem + CODE, code_l1, code_end - code_l1);
	put(PML4, 8, PDPT | 3);
	put(PDPT, 8, PD | 3);
	put(PD, 8, 0x83);
	put(GDT + 0x08, 8, 0x00af9b000000ffff);
	put(GDT + 0x10, 8, 0x00cf93000000ffff);
	put(IDT + 14 * 16, 8, 0x8e0000080000ull | (handler & 0xffff) | (handler >> 16) << 48);
}

static void make_registers(bool intercept)
{
	struct kvm_regs regs = { .rip = CODE, .rsp = L1_STACK, .rflags = 2 };
	struct kvm_sregs sregs;

	MUST(ioctl(vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = 0;
	sregs.cs.limit = -1;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cs.l = sregs.cs.g = 1;
	sregs.gdt.base = GDT;
	sregs.gdt.limit = 3 * 8 - 1;
	sregs.idt.base = IDT;
	sregs.idt.limit = 15 * 16 - 1;
	sregs.cr0 = 0x80000011;			/* PG, ET, PE */
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;			/* PAE */
	sregs.efer = 1 << 12 | 1 << 10 | 1 << 8;	/* SVME, LMA, LME */
	MUST(ioctl(vcpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(vcpu, KVM_SET_REGS, &regs));
	make_vmcb(&sregs, intercept);
}

static void make_vm(bool intercept)
{
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	struct kvm_userspace_memory_region slot = { .memory_size = MEM_SIZE };

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		skip("/dev/kvm cannot be opened");
	vm = MUST(ioctl(kvm, KVM_CREATE_VM, 0));
	MUST(ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	MUST(ioctl(vm, KVM_ENABLE_CAP, &payload));	/* else L2 has a #PF injected, whatever L1 intercepts */
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, MEM_SIZE, MADV_NOHUGEPAGE))
		bail_out("no memory");
	open_uffd();
	make_memory();
	slot.userspace_addr = (uintptr_t)mem;
	MUST(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	vcpu = MUST(ioctl(vm, KVM_CREATE_VCPU, 0));
	run = mmap(NULL, MUST(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		bail_out("the vCPU cannot be mapped");
	set_cpuid();
	make_registers(intercept);
	MUST(ioctl(vcpu, KVM_GET_LAPIC, &quiet));
	*(uint32_t *)(quiet.regs + 0xf0) = 0x1ff;	/* enabled by software: else no page is ever ready */
	MUST(ioctl(vcpu, KVM_SET_LAPIC, &quiet));
	write_msr(MSR_HSAVE, HSAVE);
	write_msr(MSR_INT, VECTOR);
	write_msr(MSR_EN, AREA | EN_FLAGS);
}

static void end_vm(void)
{
	munmap(run, MUST(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)));
	close(vcpu);
	close(vm);
	close(kvm);
	close(uffd);
	munmap(mem, MEM_SIZE);
}

/* ---- the vCPU's thread: one KVM_RUN ---- */

static void on_signal(int number)
{
	(void)number;
}

static void *run_vcpu(void *unused)
{
	tid = syscall(SYS_gettid);
	failed = ioctl(vcpu, KVM_RUN, 0) ? errno : 0;
	return unused;
}

static void start(void)
{
	tid = 0;
	if (pthread_create(&thread, NULL, run_vcpu, NULL))
		bail_out("no thread");
	while (!tid)
		usleep(100);
}

/* Whether the thread ends within that time. */
static bool ends(int ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (until.tv_nsec / 1000000 + ms) / 1000;
	until.tv_nsec = (until.tv_nsec / 1000000 + ms) % 1000 * 1000000L;
	return !pthread_timedjoin_np(thread, NULL, &until);
}

static void must_end(void)
{
	if (!ends(PATIENCE_MS))
		bail_out("KVM_RUN does not end");
}

static bool at_port(uint16_t port)
{
	return !failed && run->exit_reason == KVM_EXIT_IO && run->io.port == port;
}

/* Enabling has raised an interrupt, the wake-all: L1 has no handler, so take it away, and acknowledge it. */
static void say_hello(void)
{
	start();
	must_end();
	if (!at_port(HELLO_PORT))
		bail_out("L1 does not run");
	MUST(ioctl(vcpu, KVM_SET_LAPIC, &quiet));
	put(AREA, 8, 0);
	write_msr(MSR_ACK, 1);
}

/* Out of KVM_RUN with the token pending. */
static void interrupt(enum between between)
{
	struct kvm_vcpu_events events;

	wait_for_fault(AREA, true);
	pthread_kill(thread, SIGUSR1);
	provide(AREA);
	must_end();
	if (failed != EINTR)
		bail_out("the signal does not take the vCPU out of KVM_RUN");
	if (between == STATE || between == OWN_FAULT) {
		MUST(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events));
		MUST(ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events));
	} else if (between == NMI) {
		MUST(ioctl(vcpu, KVM_NMI, 0));
	}
	start();
}

static enum outcome outcome(void)
{
	uint64_t code = get(VMCB + 0x70, 8);
	bool token = get(AREA, 4) == 1;

	if (!at_port(EXIT_PORT) || !token)
		return ODD;
	if (code == EXIT_PF && get(VMCB + 0x78, 8) == 0 && get(VMCB + 0x80, 8))
		return get(VMCB + 0x640, 8) == L2_CR2 ? TOLD : ODD;
	if (code == EXIT_VMMCALL)
		return TO_L2;
	return code == EXIT_INTR || code == EXIT_NMI || code == EXIT_HLT ? LEFT : ODD;
}

static bool test(int number, enum between between, bool intercept)
{
	enum outcome found;

	make_vm(intercept);
	if (between == UNPAGED)
		switch_paging_off();
	say_hello();
	make_missing(MISSING);
	if (between == NMI)
		put(VMCB + 0x00c, 4, 1u << 0 | 1u << 1 | 1u << 24);	/* and NMI */
	if (between == SIGNAL || between == STATE || between == NMI)
		make_missing(AREA);
	start();
	if (between == NOTHING || between == UNPAGED)
		wait_for_fault(MISSING, false);
	else
		interrupt(between);
	if (!ends(500)) {		/* L2 was entered again, and is halted until its page is there */
		provide(MISSING);
		must_end();
	}
	found = outcome();
	printf("%s %d - %s %s: the token is %s", found == TOLD ? "ok" : "not ok", number, between_names[between],
	       intercept_names[intercept], outcome_names[found]);
	if (found == ODD)
		printf(", KVM_RUN %d, reason %u, exit %#llx, flags %llu, CR2 %#llx", failed, run->exit_reason,
		       (unsigned long long)get(VMCB + 0x70, 8), (unsigned long long)get(AREA, 4),
		       (unsigned long long)get(VMCB + 0x640, 8));
	printf("\n");
	provide(MISSING);
	end_vm();
	return found == TOLD;
}

/* L1's code and L2's: L1 takes physical interrupts whatever L2's IF says. */
static void make_toucher(void)
{
	struct kvm_regs regs = { .rip = AT(code_touch), .rsp = L1_STACK, .rflags = 2 };
	uint64_t handler = AT(code_touch_pf);

	put(IDT + 14 * 16, 8, 0x8e0000080000ull | (handler & 0xffff) | (handler >> 16) << 48);
	put(VMCB + 0x00c, 4, 1u << 0);		/* INTR */
	put(VMCB + 0x060, 8, 1u << 24);		/* V_INTR_MASKING */
	put(VMCB + 0x578, 8, AT(code_l2_says));
	MUST(ioctl(vcpu, KVM_SET_REGS, &regs));
}

static void run_to(uint16_t port)
{
	start();
	must_end();
	if (!at_port(port))
		bail_out("neither L1 nor its L2 runs");
}

/* L2 has executed HLT, and the vCPU is out of KVM_RUN. */
static void halt_l2(void)
{
	struct kvm_mp_state mp;

	for (int n = 0; n < 100; n++) {
		start();
		while (!ends(50))
			pthread_kill(thread, SIGUSR1);
		MUST(ioctl(vcpu, KVM_GET_MP_STATE, &mp));
		if (failed == EINTR && mp.mp_state == KVM_MP_STATE_HALTED)
			return;
	}
	bail_out("L2 is not halted");
}

static void send_interrupt(void)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = MSI_VECTOR };

	MUST(ioctl(vm, KVM_SIGNAL_MSI, &msi));
}

static bool test_exit(void)
{
	bool told = false;

	make_vm(false);
	make_toucher();
	say_hello();
	make_missing(MISSING);
	start();
	wait_for_fault(MISSING, false);
	must_end();
	if (!at_port(L2_PORT))
		bail_out("L1 has no token");
	halt_l2();
	provide(MISSING);
	usleep(200000);		/* the worker may be late: L1 is told behind another exit then */
	send_interrupt();
	run_to(EXIT_PORT);
	if (get(VMCB + 0x70, 8) != EXIT_INTR)
		bail_out("the interrupt does not end L2");
	for (int n = 0; n < 100 && !told; n++) {
		told = get(AREA + 4, 4) != 0;
		if (told)
			break;
		usleep(10000);
		run_to(EXIT_PORT);	/* the interrupt waits for L1 still */
	}
	printf("%s 1 - %s %s: the token is %s\n", told ? "ok" : "not ok", between_names[EXIT], intercept_names[0],
	       outcome_names[told ? TOLD : LEFT]);
	end_vm();
	return told;
}

/* L2's handler ends in VMMCALL; an L2 that is given nothing comes to its HLT. */
static bool test_inject(void)
{
	enum outcome found = ODD;
	bool good;

	make_vm(false);
	put(VMCB + 0x0a8, 8, 1u << 31 | 1u << 11 | 3u << 8 | 14);	/* EVENTINJ: #PF, with an error code */
	put(VMCB + 0x640, 8, 0x1000);					/* CR2, the token */
	put(IDT + 14 * 16 + 5, 1, 0x8f);	/* a trap gate: with IF = 0 the interrupt would have to wait (F8 of 5.10) */
	say_hello();
	send_interrupt();
	run_to(EXIT_PORT);
	if (get(VMCB + 0x70, 8) == EXIT_INTR) {	/* else KVM was late */
		if (get(VMCB + 0x88, 8) & 1u << 31)	/* EXITINTINFO */
			bail_out("L1 is to inject the #PF again");
		put(VMCB + 0x0a8, 8, 0);	/* as an L1 does that has injected it */
		MUST(ioctl(vcpu, KVM_SET_LAPIC, &quiet));
		run_to(EXIT_PORT);
	}
	if (get(VMCB + 0x70, 8) == EXIT_VMMCALL)
		found = TO_L2;
	else if (get(VMCB + 0x70, 8) == EXIT_HLT)
		found = LEFT;
	good = found == TO_L2;
	printf("%s 1 - %s %s: the token is %s\n", good ? "ok" : "not ok", between_names[INJECT], intercept_names[0],
	       outcome_names[found]);
	end_vm();
	return good;
}

/* The wake-all of a second write of EN waits for the token word, and for somebody who has KVM look again. */
static bool test_acked(void)
{
	bool told;

	make_vm(false);
	put(VMCB + 0x00c, 4, 1u << 0);		/* INTR: the interrupt of the wake-all ends L2 */
	put(VMCB + 0x578, 8, AT(code_l2_acks));
	say_hello();
	put(AREA + 4, 4, 1);
	write_msr(MSR_EN, AREA | EN_FLAGS);
	start();
	must_end();
	told = (at_port(L2_PORT) || at_port(EXIT_PORT)) && get(AREA + 4, 4) == 0xffffffff;
	printf("%s 1 - %s %s: the token is %s\n", told ? "ok" : "not ok", between_names[ACKED], intercept_names[0],
	       outcome_names[told ? TOLD : at_port(L2_PORT) ? LEFT : ODD]);
	end_vm();
	return told;
}

/* Who asks for the page that L2 touches first. */
static bool worker_asks(void)
{
	struct pollfd asked = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&asked, 1, 30000) != 1 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
		bail_out("a page was never asked for");
	return msg.arg.pagefault.feat.ptid != (uint32_t)tid;
}

static bool test_shadow(void)
{
	enum outcome found;

	make_vm(false);
	put(VMCB + 0x570, 8, 2);
	put(VMCB + 0x578, 8, AT(code_l2_opens));
	say_hello();
	write_msr(MSR_EN, 0);
	make_missing(MISSING);
	start();
	found = worker_asks() ? HALT : ODD;
	provide(MISSING);
	must_end();
	if (!at_port(L2_PORT))
		found = ODD;
	printf("%s 1 - %s %s: the token is %s\n", found == HALT ? "ok" : "not ok", between_names[SHADOW],
	       intercept_names[0], outcome_names[found]);
	end_vm();
	return found == HALT;
}

/* One to one, 4 KiB each. */
static void make_nested_tables(void)
{
	put(NPML4, 8, NPDPT | 7);
	put(NPDPT, 8, NPD | 7);
	put(NPD, 8, NPT | 7);
	for (uint64_t page = 0; page < MEM_SIZE / PAGE; page++)
		put(NPT + page * 8, 8, page * PAGE | 7);
	put(VMCB + 0x090, 8, 1);
	put(VMCB + 0x0b0, 8, NPML4);
	put(VMCB + 0x668, 8, 0x0007040600070406);	/* PAT */
}

static bool test_unmapped(void)
{
	enum outcome found = ODD;
	struct kvm_regs regs;

	make_vm(false);
	make_nested_tables();
	say_hello();
	write_msr(MSR_EN, 0);
	make_missing(MISSING);
	start();
	wait_for_fault(MISSING, false);
	while (!ends(50))
		pthread_kill(thread, SIGUSR1);
	if (failed != EINTR)
		bail_out("L2 is not halted");
	MUST(ioctl(vcpu, KVM_GET_REGS, &regs));
	if (regs.rip != AT(code_l2_touches))
		bail_out("L2 is not at its page");
	regs.rip = AT(code_l2_says);
	MUST(ioctl(vcpu, KVM_SET_REGS, &regs));
	put(NPT + MISSING / PAGE * 8, 8, 0);
	provide(MISSING);
	usleep(200000);		/* the worker is through with it */
	start();
	must_end();
	if (at_port(L2_PORT))
		found = HALT;
	else if (at_port(EXIT_PORT))
		found = TOLD;	/* of a fault that nobody has made */
	printf("%s 1 - %s %s: the token is %s\n", found == HALT ? "ok" : "not ok", between_names[UNMAPPED],
	       intercept_names[0], outcome_names[found]);
	end_vm();
	return found == HALT;
}

static bool test_own_fault(void)
{
	enum outcome found;

	make_vm(true);
	say_hello();
	make_missing(MISSING);
	make_missing(AREA);
	start();
	interrupt(OWN_FAULT);
	must_end();
	found = outcome();
	if (found == TOLD) {	/* and its page stays away: no interrupt of its ready event ends L2 */
		put(AREA, 4, 0);
		put(VMCB + 0x578, 8, AT(code_l2_ins));
		run_to(IN_PORT);
		run_to(EXIT_PORT);
		if (get(VMCB + 0x70, 8) != EXIT_PF || get(VMCB + 0x80, 8) != NOWHERE)
			found = ODD;
	}
	printf("%s 1 - %s %s: the token is %s", found == TOLD ? "ok" : "not ok", between_names[OWN_FAULT],
	       intercept_names[1], outcome_names[found]);
	if (found == ODD)
		printf(", exit %#llx of %#llx", (unsigned long long)get(VMCB + 0x70, 8),
		       (unsigned long long)get(VMCB + 0x80, 8));
	printf("\n");
	provide(MISSING);
	end_vm();
	return found == TOLD;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	bool good = true;

	sigaction(SIGUSR1, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n");
	if (argc == 2 && (!strcmp(argv[1], between_names[EXIT]) || !strcmp(argv[1], between_names[INJECT]))) {
		good = !strcmp(argv[1], between_names[EXIT]) ? test_exit() : test_inject();
		printf("1..1\n");
		return good ? KSFT_PASS : KSFT_FAIL;
	}
	for (int n = ACKED; argc == 2 && n <= OWN_FAULT; n++) {
		if (strcmp(argv[1], between_names[n]))
			continue;
		good = n == ACKED ? test_acked() : n == SHADOW ? test_shadow() : n == UNMAPPED ? test_unmapped() :
			test_own_fault();
		printf("1..1\n");
		return good ? KSFT_PASS : KSFT_FAIL;
	}
	if (argc == 2 && (!strcmp(argv[1], between_names[UNPAGED]) || !strcmp(argv[1], between_names[NMI]))) {
		good = test(1, strcmp(argv[1], between_names[NMI]) ? UNPAGED : NMI, true);
		printf("1..1\n");
		return good ? KSFT_PASS : KSFT_FAIL;
	}
	for (int n = 0; n < 2 * WITHOUT_NAME; n++)
		good &= test(n + 1, n / 2, n % 2);
	printf("1..%d\n", 2 * WITHOUT_NAME);
	return good ? KSFT_PASS : KSFT_FAIL;
}
