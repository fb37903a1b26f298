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
 *
 * apf_halted_test.c is the plain case alone, and short.
 *
 * Output is TAP.  Exit code: 0 all as it should be, 1 a vCPU never ran again (or otherwise not as it should), 4 skipped.
 * Needs /dev/kvm and userfaultfd for faults of the kernel: run it as root, or set vm.unprivileged_userfaultfd.
 *
 * The missing page is one that userfaultfd has not provided yet: the read takes as long as this program wants.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
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

/* Guest physical memory: 2 MiB, mapped one to one in long mode. */
#define MEM_SIZE	0x200000
#define GDT		0x2000
#define IDT		0x3000
#define AREA		0x4000	/* struct kvm_vcpu_pv_apf_data */
#define CODE		0x5000
#define STACK		0x8000
#define TRAMPOLINE	0x9000	/* where a SIPI starts the vCPU */
#define PML4		0xa000
#define PDPT		0xb000
#define PD_LOW		0xc000
#define PD_LAPIC	0xd000
#define MISSING		0x10000
#define PAGE		0x1000

#define READY_VECTOR	0xf3
#define PORT		0x10
#define EN_CPL3_ONLY	(AREA | KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define EN_ALWAYS	(EN_CPL3_ONLY | KVM_ASYNC_PF_SEND_ALWAYS)
#define MSR_EN		0x4b564d02
#define MSR_INT		0x4b564d06
#define MSR_ACK		0x4b564d07

/* What the guest says on PORT. */
enum said { NOTHING, TOUCHED, STARTED_ANEW, GOT_NMI, GOT_SIPI };

/* The guest's code; it is copied to CODE and runs there (position independent but for fixed addresses). */
asm(".pushsection .rodata\n"
    "guest_touch:\n"			/* touch the page that is missing, say so */
    "	movl 0x10000, %eax\n"
    "	movb $1, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_anew:\n"			/* where a reset starts it */
    "	movb $2, %al\n"
    "	outb %al, $0x10\n"
    "1:	jmp 1b\n"
    "guest_nmi:\n"
    "	pushq %rax\n"
    "	movb $3, %al\n"
    "	outb %al, $0x10\n"
    "	popq %rax\n"
    "	iretq\n"
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
    ".code64\n"
    ".popsection\n");
extern const char guest_touch[], guest_anew[], guest_nmi[], guest_pf[], guest_ready[], guest_end[];
extern const char guest_sipi[], guest_sipi_end[];
#define AT(symbol) (CODE + (uint32_t)((symbol) - guest_touch))

/* Why the vCPU is halted, and how userspace changes its state. */
enum cause { CPL0, OFF, REPEATED, CAUSES };
enum way { RESET, EN0, LOADVM, MPSTATE, STOP_CONT, NMI, INIT_SIPI, REPLUG, MIGRATE, WAYS };
/* What becomes of it: it runs at once, when the page is there, or never. */
enum outcome { AT_ONCE, WITH_PAGE, NEVER, ODD };

static const char *const cause_names[] = { "cpl0", "off", "repeated" };
static const char *const way_names[] = {
	"reset", "en0", "loadvm", "mpstate", "stop-cont", "nmi", "init-sipi", "replug", "migrate",
};
static const char *const outcome_names[] = { "at once", "with its page", "never", "odd" };
static const enum outcome right[] = {
	AT_ONCE, AT_ONCE, AT_ONCE, WITH_PAGE, WITH_PAGE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE,
};
static int patience_ms = 3000;
static int planned, number;

static void __attribute__((noreturn, format(printf, 2, 3))) quit(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (code != KSFT_SKIP)
		printf("Bail out! ");
	else if (planned)
		printf("ok %d # SKIP ", number + 1);
	else
		printf("1..0 # SKIP ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	exit(code);
}

#define MUST(call) ({ long _r = (call); if (_r < 0) quit(KSFT_FAIL, "%s: %s", #call, strerror(errno)); _r; })

static void rest(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* ---- the virtual machine ---- */

struct vm {
	int kvm, fd, vcpu, uffd;
	char *mem;
	struct kvm_run *run;
	long run_size;
	struct kvm_lapic_state lapic;	/* as at the start */
	struct kvm_sregs sregs;
};

static void set_msr(struct vm *vm, uint32_t index, uint64_t value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = index, .data = value },
	};

	if (MUST(ioctl(vm->vcpu, KVM_SET_MSRS, &msrs)) != 1)
		quit(KSFT_FAIL, "MSR %#x does not take %#llx", index, (unsigned long long)value);
}

static void set_mp_state(struct vm *vm, uint32_t state)
{
	struct kvm_mp_state mp = { state };

	MUST(ioctl(vm->vcpu, KVM_SET_MP_STATE, &mp));
}

static void start_at(struct vm *vm, uint32_t rip)
{
	struct kvm_regs regs = { .rip = rip, .rsp = STACK, .rflags = 0x202 };

	MUST(ioctl(vm->vcpu, KVM_SET_SREGS, &vm->sregs));
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
	memcpy(vm->mem + TRAMPOLINE, guest_sipi, guest_sipi_end - guest_sipi);
	gate(vm, 2, AT(guest_nmi));
	gate(vm, 14, AT(guest_pf));
	gate(vm, READY_VECTOR, AT(guest_ready));
}

/* Userfaultfd over the page that is to be missing. */
static int missing_page(char *page)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };
	struct uffdio_register range = {
		.range = { (uintptr_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		quit(KSFT_SKIP, "userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		quit(KSFT_SKIP, "UFFDIO_API: %s", strerror(errno));
	MUST(ioctl(fd, UFFDIO_REGISTER, &range));
	return fd;
}

static void make_vm(struct vm *vm, bool missing)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { .head.nent = 256 };
	struct kvm_userspace_memory_region slot = { .memory_size = MEM_SIZE };
	uint64_t identity = 0xfffbc000;

	memset(vm, 0, sizeof(*vm));
	vm->uffd = -1;
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		quit(KSFT_SKIP, "/dev/kvm: %s", strerror(errno));
	vm->fd = MUST(ioctl(vm->kvm, KVM_CREATE_VM, 0));
	ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000);
	MUST(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	/* vCPU 0 is no boot CPU, so that an INIT makes it wait for a SIPI. */
	MUST(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 1));
	vm->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->mem == MAP_FAILED)
		quit(KSFT_FAIL, "no memory");
	madvise(vm->mem, MEM_SIZE, MADV_NOHUGEPAGE);
	fill(vm);
	if (missing)
		vm->uffd = missing_page(vm->mem + MISSING);
	slot.userspace_addr = (uintptr_t)vm->mem;
	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot));

	vm->vcpu = MUST(ioctl(vm->fd, KVM_CREATE_VCPU, 0));
	vm->run_size = MUST(ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED)
		quit(KSFT_FAIL, "mmap of the vCPU: %s", strerror(errno));
	MUST(ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	MUST(ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid));
	MUST(ioctl(vm->vcpu, KVM_GET_LAPIC, &vm->lapic));
	vm->lapic.regs[0xf0] = 0xff;	/* spurious-interrupt vector, and */
	vm->lapic.regs[0xf1] = 0x01;	/* software enable */
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &vm->lapic));
	MUST(ioctl(vm->vcpu, KVM_GET_SREGS, &vm->sregs));
	vm->sregs.cs = segment(0x08, 0xb, true);
	vm->sregs.ds = vm->sregs.es = vm->sregs.fs = vm->sregs.gs = vm->sregs.ss = segment(0x10, 0x3, false);
	vm->sregs.gdt.base = GDT;
	vm->sregs.gdt.limit = 3 * 8 - 1;
	vm->sregs.idt.base = IDT;
	vm->sregs.idt.limit = 256 * 16 - 1;
	vm->sregs.cr0 = 0x80000011;	/* PG, ET, PE */
	vm->sregs.cr3 = PML4;
	vm->sregs.cr4 = 0x20;		/* PAE */
	vm->sregs.efer = 0x500;		/* LMA, LME */
	start_at(vm, AT(guest_touch));
	set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
}

static void provide_page(struct vm *vm)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)vm->mem + MISSING, PAGE } };

	if (vm->uffd >= 0 && ioctl(vm->uffd, UFFDIO_ZEROPAGE, &zero) && errno != EEXIST)
		quit(KSFT_FAIL, "UFFDIO_ZEROPAGE: %s", strerror(errno));
}

static void end_vm(struct vm *vm)
{
	provide_page(vm);
	munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->fd);
	close(vm->kvm);
	if (vm->uffd >= 0)
		close(vm->uffd);
	munmap(vm->mem, MEM_SIZE);
}

/* ---- the vCPU's thread: it runs the vCPU, and it changes the vCPU's state, as in a VMM ---- */

struct runner {
	struct vm *vm;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*change)(struct vm *vm, enum cause cause);	/* to be done outside KVM_RUN */
	enum cause cause;
	bool stop;	/* leave KVM_RUN */
	bool out;	/* it has */
	bool quit;
	enum said said;
	pid_t tid;
	char trouble[96];
};

static void on_signal(int number)
{
	(void)number;
}

static void tell(struct runner *r, enum said said)
{
	pthread_mutex_lock(&r->lock);
	r->said = said;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static bool park(struct runner *r)
{
	pthread_mutex_lock(&r->lock);
	while (r->stop && !r->quit) {
		r->out = true;
		pthread_cond_broadcast(&r->changed);
		if (r->change) {
			void (*change)(struct vm *, enum cause) = r->change;

			pthread_mutex_unlock(&r->lock);
			change(r->vm, r->cause);
			pthread_mutex_lock(&r->lock);
			r->change = NULL;
			r->stop = false;
			r->vm->run->immediate_exit = 0;
			pthread_cond_broadcast(&r->changed);
		} else {
			pthread_cond_wait(&r->changed, &r->lock);
		}
	}
	r->out = false;
	pthread_mutex_unlock(&r->lock);
	return !r->quit;
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	struct kvm_run *run = r->vm->run;

	pthread_mutex_lock(&r->lock);
	r->tid = syscall(SYS_gettid);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	while (park(r)) {
		if (ioctl(r->vm->vcpu, KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			snprintf(r->trouble, sizeof(r->trouble), "KVM_RUN: %s", strerror(errno));
			tell(r, NOTHING);
			return NULL;
		}
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT) {
			tell(r, *((uint8_t *)run + run->io.data_offset));
		} else if (run->exit_reason != KVM_EXIT_INTR) {
			snprintf(r->trouble, sizeof(r->trouble), "exit reason %u", run->exit_reason);
			tell(r, NOTHING);
			return NULL;
		}
	}
	return NULL;
}

static void start(struct runner *r, struct vm *vm)
{
	memset(r, 0, sizeof(*r));
	r->vm = vm;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	pthread_create(&r->thread, NULL, run_vcpu, r);
	pthread_mutex_lock(&r->lock);
	while (!r->tid)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

/* Get the thread out of KVM_RUN. */
static void stop(struct runner *r)
{
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	r->vm->run->immediate_exit = 1;
	pthread_mutex_unlock(&r->lock);
	for (int ms = 0; ms < 5000 && !r->out && !r->trouble[0]; ms += 5) {
		pthread_kill(r->thread, SIGUSR1);
		rest(5);
	}
	if (!r->out && !r->trouble[0])
		quit(KSFT_FAIL, "a vCPU does not leave KVM_RUN");
}

/* Have the thread change the vCPU's state, and then run it again. */
static void change_and_go(struct runner *r, enum cause cause, void (*change)(struct vm *, enum cause))
{
	pthread_mutex_lock(&r->lock);
	r->said = NOTHING;
	r->cause = cause;
	r->change = change;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static void finish(struct runner *r)
{
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	r->vm->run->immediate_exit = 1;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	for (int ms = 0; ms < 5000 && pthread_tryjoin_np(r->thread, NULL); ms += 5) {
		pthread_kill(r->thread, SIGUSR1);
		rest(5);
	}
}

static bool waits(struct runner *r, enum said said, int ms)
{
	struct timespec until;
	bool met;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_mutex_lock(&r->lock);
	while (r->said != said && !r->trouble[0])
		if (pthread_cond_timedwait(&r->changed, &r->lock, &until))
			break;
	met = r->said == said;
	pthread_mutex_unlock(&r->lock);
	return met;
}

static char state_of(pid_t tid)
{
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return '?';
	if (!fgets(line, sizeof(line), file))
		line[0] = 0;
	fclose(file);
	return line[0] ? strrchr(line, ')')[2] : '?';
}

/* The page was asked for by a worker, and the vCPU sleeps. */
static void wait_for_halt(struct runner *r)
{
	struct pollfd poll_for = { .fd = r->vm->uffd, .events = POLLIN };
	struct uffd_msg msg;
	int asleep = 0;

	if (poll(&poll_for, 1, 10000) != 1 || read(r->vm->uffd, &msg, sizeof(msg)) != sizeof(msg))
		quit(KSFT_FAIL, "the page was never asked for (%s)", r->trouble[0] ? r->trouble : "no exit");
	if (msg.arg.pagefault.feat.ptid == (uint32_t)r->tid)
		quit(KSFT_SKIP, "the vCPU's own thread asks for the page: no asynchronous page faults");
	for (int ms = 0; ms < 10000 && asleep < 20; ms += 10) {
		asleep = state_of(r->tid) == 'S' ? asleep + 1 : 0;
		rest(10);
	}
	if (asleep < 20)
		quit(KSFT_FAIL, "the vCPU is not halted");
}

/* ---- the ways ---- */

static void write_en(struct vm *vm, enum cause cause)
{
	set_msr(vm, MSR_INT, READY_VECTOR);
	set_msr(vm, MSR_EN, cause == CPL0 ? EN_CPL3_ONLY : cause == REPEATED ? EN_ALWAYS : 0);
}

static void change_nothing(struct vm *vm, enum cause cause)
{
	(void)vm;
	(void)cause;
}

static void change_en0(struct vm *vm, enum cause cause)
{
	(void)cause;
	set_msr(vm, MSR_EN, 0);
}

static void change_mpstate(struct vm *vm, enum cause cause)
{
	(void)cause;
	set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
}

static void reset_to(struct vm *vm, uint32_t mp_state)
{
	struct kvm_vcpu_events events = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING };

	start_at(vm, AT(guest_anew));
	set_msr(vm, MSR_INT, 0);
	set_msr(vm, MSR_EN, 0);
	memset(vm->mem + AREA, 0, 64);
	MUST(ioctl(vm->vcpu, KVM_SET_LAPIC, &vm->lapic));
	MUST(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events));
	set_mp_state(vm, mp_state);
}

static void change_reset(struct vm *vm, enum cause cause)
{
	(void)cause;
	reset_to(vm, KVM_MP_STATE_RUNNABLE);
}

/* QEMU's loadvm: a reset, then the state of the snapshot, which has EN as the guest had set it. */
static void change_loadvm(struct vm *vm, enum cause cause)
{
	reset_to(vm, KVM_MP_STATE_RUNNABLE);
	write_en(vm, cause);
	set_mp_state(vm, KVM_MP_STATE_RUNNABLE);
}

static void change_replug(struct vm *vm, enum cause cause)
{
	(void)cause;
	reset_to(vm, KVM_MP_STATE_UNINITIALIZED);
}

static void send(struct vm *vm, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = data };

	MUST(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
}

static void start_by_sipi(struct vm *vm)
{
	send(vm, 0x4500);	/* INIT, assert */
	provide_page(vm);	/* the vCPU waits for the worker before it obeys */
	rest(50);
	send(vm, 0x4600 | TRAMPOLINE >> 12);
}

/* Whether it says this now; if not, whether it does once the page is there. */
static enum outcome when(struct runner *r, enum said said)
{
	if (waits(r, said, 300))
		return AT_ONCE;
	provide_page(r->vm);
	return waits(r, said, patience_ms) ? WITH_PAGE : NEVER;
}

static enum outcome migrated(struct vm *old)
{
	struct runner r;
	enum outcome found;
	struct vm vm;

	provide_page(old);
	make_vm(&vm, false);
	start_at(&vm, AT(guest_touch));
	start(&r, &vm);
	found = waits(&r, TOUCHED, patience_ms) ? AT_ONCE : NEVER;
	finish(&r);
	end_vm(&vm);
	return found;
}

static enum outcome with(struct runner *r, enum cause cause, enum way way)
{
	enum outcome found = ODD;

	if (way != NMI && way != INIT_SIPI)
		stop(r);
	switch (way) {
	case RESET:
	case EN0:
	case LOADVM:
		change_and_go(r, cause, way == RESET ? change_reset : way == EN0 ? change_en0 : change_loadvm);
		rest(50);
		provide_page(r->vm);	/* writing EN = 0 waits for the worker */
		found = waits(r, way == EN0 ? TOUCHED : STARTED_ANEW, patience_ms) ? AT_ONCE : NEVER;
		break;
	case MPSTATE:
	case STOP_CONT:
		change_and_go(r, cause, way == MPSTATE ? change_mpstate : change_nothing);
		found = when(r, TOUCHED);
		break;
	case NMI:
		send(r->vm, 0x4400);	/* KVM_NMI would wait until the vCPU leaves KVM_RUN */
		found = waits(r, GOT_NMI, patience_ms) ? AT_ONCE : NEVER;
		if (found == AT_ONCE && when(r, TOUCHED) != WITH_PAGE)
			found = ODD;
		break;
	case INIT_SIPI:
		start_by_sipi(r->vm);
		found = waits(r, GOT_SIPI, patience_ms) ? AT_ONCE : NEVER;
		break;
	case REPLUG:
		change_and_go(r, cause, change_replug);
		rest(50);
		provide_page(r->vm);
		rest(50);
		start_by_sipi(r->vm);
		found = waits(r, GOT_SIPI, patience_ms) ? AT_ONCE : NEVER;
		break;
	case MIGRATE:
		found = migrated(r->vm);
		break;
	case WAYS:
		break;
	}
	return found;
}

static void plan(int tests)
{
	planned = tests;
	printf("TAP version 13\n1..%d\n", planned);
}

static bool test(enum cause cause, enum way way)
{
	enum outcome found;
	struct runner r;
	struct vm vm;
	bool good;

	make_vm(&vm, true);
	if (cause != OFF)
		write_en(&vm, cause);
	start(&r, &vm);
	wait_for_halt(&r);
	found = with(&r, cause, way);
	good = found == right[way] && !r.trouble[0];
	printf("%s %d - %s %s: the vCPU runs %s%s%s\n", good ? "ok" : "not ok", ++number, cause_names[cause],
	       way_names[way], outcome_names[found], r.trouble[0] ? ", " : "", r.trouble);
	fflush(stdout);
	finish(&r);
	end_vm(&vm);
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
	struct sigaction action = { .sa_handler = on_signal };
	bool good = true;

	sigaction(SIGUSR1, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3) {
		int cause = find(argv[1], cause_names, CAUSES);
		int way = find(argv[2], way_names, WAYS);

		plan(1);
		good = test(cause, way);
	} else if (argc == 2 && !strcmp(argv[1], "all")) {
		plan(CAUSES * WAYS);
		for (int way = 0; way < WAYS; way++)
			for (int cause = 0; cause < CAUSES; cause++)
				good &= test(cause, way);
	} else {
		find("", way_names, WAYS);
	}
	return good ? KSFT_PASS : KSFT_FAIL;
}
