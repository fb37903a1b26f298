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
 * The missing page is one that userfaultfd has not provided yet.  apf_halted_ways_test.c has more causes and changes.
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

/* Guest physical memory: 64 KiB, used in real mode.  The guest enables nothing, so that each missing page is a halt. */
#define MEM_SIZE	0x10000
#define CODE		0x1000
#define STACK		0x4000
#define MISSING		0x8000
#define PAGE		0x1000

#define PORT		0x10
#define PATIENCE_MS	3000
#define MSR_EN		0x4b564d02

/* What the guest says on PORT. */
enum said { NOTHING, TOUCHED, STARTED_ANEW };

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
static const char *const outcome_names[] = { "at once", "with its page", "never", "odd" };
enum outcome { AT_ONCE, WITH_PAGE, NEVER, ODD };

static int kvm, vm, vcpu, uffd;
static char *mem;
static struct kvm_run *run;
static pthread_t thread;
static volatile pid_t tid;
static volatile enum said said;

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

static void disable_async_pf(void)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = MSR_EN, .data = 0 },
	};

	if (MUST(ioctl(vcpu, KVM_SET_MSRS, &msrs)) != 1)
		bail_out("MSR_KVM_ASYNC_PF_EN is refused");
}

static void start_at(const char *code)
{
	struct kvm_regs regs = { .rip = CODE + (code - guest_touch), .rsp = STACK, .rflags = 0x202 };
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };

	MUST(ioctl(vcpu, KVM_SET_REGS, &regs));
	MUST(ioctl(vcpu, KVM_SET_MP_STATE, &runnable));
}

static void make_missing(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };
	struct uffdio_register range = {
		.range = { (uintptr_t)mem + MISSING, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip("userfaultfd for faults of the kernel is not to be had");
	MUST(ioctl(uffd, UFFDIO_REGISTER, &range));
}

static void provide_page(void)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)mem + MISSING, PAGE } };

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) && errno != EEXIST)
		bail_out("UFFDIO_ZEROPAGE fails");
}

static void make_vm(void)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { .head.nent = 256 };
	struct kvm_userspace_memory_region slot = { .memory_size = MEM_SIZE };
	uint64_t identity = 0xfffbc000;
	struct kvm_sregs sregs;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		skip("/dev/kvm cannot be opened");
	vm = MUST(ioctl(kvm, KVM_CREATE_VM, 0));
	ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);	/* real mode on old Intel processors */
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	MUST(ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		bail_out("no memory");
	memset(mem, 0, MISSING);
	memcpy(mem + CODE, guest_touch, guest_end - guest_touch);
	make_missing();
	slot.userspace_addr = (uintptr_t)mem;
	MUST(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	vcpu = MUST(ioctl(vm, KVM_CREATE_VCPU, 0));
	run = mmap(NULL, MUST(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		bail_out("the vCPU cannot be mapped");
	MUST(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	MUST(ioctl(vcpu, KVM_SET_CPUID2, &cpuid));
	MUST(ioctl(vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	MUST(ioctl(vcpu, KVM_SET_SREGS, &sregs));
	start_at(guest_touch);
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

/* ---- the vCPU's thread: until the guest says something, or a signal comes ---- */

static void on_signal(int number)
{
	(void)number;
}

static void *run_vcpu(void *unused)
{
	tid = syscall(SYS_gettid);
	said = NOTHING;
	if (!ioctl(vcpu, KVM_RUN, 0) && run->exit_reason == KVM_EXIT_IO && run->io.port == PORT)
		said = *((uint8_t *)run + run->io.data_offset);
	return unused;
}

static void start(void)
{
	tid = 0;
	run->immediate_exit = 0;
	if (pthread_create(&thread, NULL, run_vcpu, NULL))
		bail_out("no thread");
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

static void stop(void)
{
	run->immediate_exit = 1;
	for (int n = 0; n < 100; n++) {
		pthread_kill(thread, SIGUSR1);
		if (ends(50))
			return;
	}
	bail_out("a vCPU does not leave KVM_RUN");
}

static bool asleep(void)
{
	char path[64], line[256] = "";
	FILE *file;
	char *name_end;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (!fgets(line, sizeof(line), file))
		line[0] = 0;
	fclose(file);
	name_end = strrchr(line, ')');
	return name_end && name_end[2] == 'S';
}

/* The page was asked for by a worker, and the vCPU sleeps. */
static void wait_for_halt(void)
{
	struct pollfd asked = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;
	int times = 0;

	if (poll(&asked, 1, 10000) != 1 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
		bail_out("the page was never asked for");
	if (msg.arg.pagefault.feat.ptid == (uint32_t)tid)
		skip("the vCPU's own thread asks for the page: no asynchronous page faults");
	for (int n = 0; n < 1000 && times < 20; n++) {
		times = asleep() ? times + 1 : 0;
		usleep(10000);
	}
	if (times < 20)
		bail_out("the vCPU is not halted");
}

/* Change the state of the halted vCPU, and see when it runs. */
static enum outcome after(enum way way)
{
	enum outcome found;

	stop();
	if (way != STOP_CONT) {
		provide_page();		/* the MSR waits for the worker */
		disable_async_pf();
	}
	if (way == RESET)
		start_at(guest_anew);	/* and KVM_SET_MP_STATE */
	start();
	if (ends(way == STOP_CONT ? 300 : PATIENCE_MS)) {
		found = AT_ONCE;
	} else {
		provide_page();
		found = way == STOP_CONT && ends(PATIENCE_MS) ? WITH_PAGE : NEVER;
	}
	if (found == NEVER)
		stop();
	else if (said != (way == RESET ? STARTED_ANEW : TOUCHED))
		found = ODD;
	return found;
}

static bool test(int number, enum way way)
{
	enum outcome found;
	bool good;

	make_vm();
	start();
	wait_for_halt();
	found = after(way);
	good = found == (way == STOP_CONT ? WITH_PAGE : AT_ONCE);
	printf("%s %d - off %s: the vCPU runs %s\n", good ? "ok" : "not ok", number, way_names[way],
	       outcome_names[found]);
	end_vm();
	return good;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	bool good = true;

	sigaction(SIGUSR1, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n");
	for (int way = 0; way < WAYS; way++)
		good &= test(way + 1, way);
	printf("1..%d\n", WAYS);
	return good ? KSFT_PASS : KSFT_FAIL;
}
