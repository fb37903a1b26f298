/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What apf_halted_test.c and apf_halted_ways_test.c share: a virtual machine with one vCPU and one missing page, the
 * thread in which the vCPU runs until its guest says something, and lines of TAP.
 *
 * The missing page is one that userfaultfd has not provided yet: it takes as long as the program wants.
 */
#ifndef APF_HALTED_H
#define APF_HALTED_H

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

#define PAGE		0x1000
#define PORT		0x10	/* where the guest says a byte */
#define MSR_EN		0x4b564d02	/* MSR_KVM_ASYNC_PF_EN */

#define NOTHING		0	/* the guest has said nothing yet */
#define AT_ONCE_MS	300
#define PATIENCE_MS	3000

/* What becomes of the vCPU: it runs at once, when the page is there, never, or all the time, to ask for its page. */
enum outcome { AT_ONCE, WITH_PAGE, NEVER, AGAIN, ODD };
static const char *const outcome_names[] = { "at once", "with its page", "never", "again and again", "odd" };

static int tests_planned, tests_done;

static void __attribute__((noreturn, format(printf, 2, 3))) quit(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (code != KSFT_SKIP)
		printf("Bail out! ");
	else if (tests_planned)
		printf("ok %d # SKIP ", tests_done + 1);
	else
		printf("1..0 # SKIP ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	exit(code);
}

#define MUST(call) ({ long _r = (call); if (_r < 0) quit(KSFT_FAIL, "%s: %s", #call, strerror(errno)); _r; })

static inline void rest(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* ---- the virtual machine ---- */

struct vm {
	int kvm, fd, vcpu, uffd;
	char *mem;
	size_t size;
	char *missing;	/* in mem */
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	bool started;
	volatile pid_t tid;
	volatile int said;
	bool worker_reads;		/* a worker has asked for a page as for a read */
	char trouble[64];	/* an exit that nobody wants */
};

static inline void set_msr(struct vm *vm, uint32_t index, uint64_t value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = index, .data = value },
	};

	if (MUST(ioctl(vm->vcpu, KVM_SET_MSRS, &msrs)) != 1)
		quit(KSFT_FAIL, "MSR %#x does not take %#llx", index, (unsigned long long)value);
}

static inline void set_mp_state(struct vm *vm, uint32_t state)
{
	struct kvm_mp_state mp = { state };

	MUST(ioctl(vm->vcpu, KVM_SET_MP_STATE, &mp));
}

/* Userfaultfd over the page that is to be missing. */
static inline void make_missing(struct vm *vm)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };
	struct uffdio_register range = {
		.range = { (uintptr_t)vm->missing, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	vm->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);	/* else poll does not wait */
	if (vm->uffd < 0)
		quit(KSFT_SKIP, "userfaultfd: %s", strerror(errno));
	if (ioctl(vm->uffd, UFFDIO_API, &api))
		quit(KSFT_SKIP, "UFFDIO_API: %s", strerror(errno));
	MUST(ioctl(vm->uffd, UFFDIO_REGISTER, &range));
}

static inline void provide_page(struct vm *vm)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)vm->missing, PAGE } };

	if (ioctl(vm->uffd, UFFDIO_ZEROPAGE, &zero) && errno != EEXIST)
		quit(KSFT_FAIL, "UFFDIO_ZEROPAGE: %s", strerror(errno));
}

static uint32_t vm_dirty_ring;	/* the bytes of a ring of dirty pages that each vCPU has */

/* Memory from guest physical address 0 on; boot_cpu: the vCPU, whose id is 0, is no boot CPU if that is another's. */
static inline void vm_create(struct vm *vm, size_t size, size_t missing, long boot_cpu)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { .head.nent = 256 };
	struct kvm_enable_cap dirty_ring = { .cap = 192 /* KVM_CAP_DIRTY_LOG_RING */, .args = { vm_dirty_ring } };
	struct kvm_userspace_memory_region slot = { .memory_size = size };
	uint64_t identity = 0xfffbc000;

	memset(vm, 0, sizeof(*vm));
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		quit(KSFT_SKIP, "/dev/kvm: %s", strerror(errno));
	vm->fd = MUST(ioctl(vm->kvm, KVM_CREATE_VM, 0));
	ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);	/* real mode on old Intel processors */
	ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000);
	MUST(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	MUST(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, boot_cpu));
	if (vm_dirty_ring && ioctl(vm->fd, KVM_ENABLE_CAP, &dirty_ring))
		quit(KSFT_SKIP, "KVM_CAP_DIRTY_LOG_RING: %s", strerror(errno));
	vm->size = size;
	vm->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->mem == MAP_FAILED)
		quit(KSFT_FAIL, "no memory");
	madvise(vm->mem, size, MADV_NOHUGEPAGE);
	vm->missing = vm->mem + missing;
	make_missing(vm);
	slot.userspace_addr = (uintptr_t)vm->mem;
	MUST(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot));

	vm->vcpu = MUST(ioctl(vm->fd, KVM_CREATE_VCPU, 0));
	vm->run_size = MUST(ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED)
		quit(KSFT_FAIL, "mmap of the vCPU: %s", strerror(errno));
	MUST(ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	MUST(ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid));
}

/* ---- the vCPU's thread: until the guest says something, or a signal comes ---- */

static inline void on_signal(int number)
{
	(void)number;
}

static inline void *run_vcpu(void *arg)
{
	struct vm *vm = arg;
	struct kvm_run *run = vm->run;
	int failed;

	vm->tid = syscall(SYS_gettid);
	do	/* EAGAIN: a vCPU that waits for a SIPI */
		failed = ioctl(vm->vcpu, KVM_RUN, 0);
	while (failed && errno == EAGAIN);
	if (failed && errno != EINTR)
		snprintf(vm->trouble, sizeof(vm->trouble), ", KVM_RUN: %s", strerror(errno));
	else if (!failed && run->exit_reason == KVM_EXIT_IO && run->io.port == PORT)
		vm->said = *((uint8_t *)run + run->io.data_offset);
	else if (!failed)
		snprintf(vm->trouble, sizeof(vm->trouble), ", exit reason %u", run->exit_reason);
	return NULL;
}

static inline void start(struct vm *vm)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	vm->tid = 0;
	vm->said = NOTHING;
	vm->run->immediate_exit = 0;
	if (pthread_create(&vm->thread, NULL, run_vcpu, vm))
		quit(KSFT_FAIL, "no thread");
	vm->started = true;
}

/* Whether the thread ends within that time. */
static inline bool ends(struct vm *vm, int ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (until.tv_nsec / 1000000 + ms) / 1000;
	until.tv_nsec = (until.tv_nsec / 1000000 + ms) % 1000 * 1000000L;
	vm->started = vm->started && pthread_timedjoin_np(vm->thread, NULL, &until);
	return !vm->started;
}

/* Get the thread out of KVM_RUN. */
static inline void stop(struct vm *vm)
{
	vm->run->immediate_exit = 1;
	for (int n = 0; n < 100 && vm->started; n++) {
		pthread_kill(vm->thread, SIGUSR1);
		ends(vm, 50);
	}
	if (vm->started)
		quit(KSFT_FAIL, "a vCPU does not leave KVM_RUN");
}

static inline void vm_free(struct vm *vm)
{
	provide_page(vm);
	stop(vm);
	munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->fd);
	close(vm->kvm);
	close(vm->uffd);
	munmap(vm->mem, vm->size);
}

static inline bool asleep(pid_t tid)
{
	char path[64], line[256] = "";
	char *name_end;
	FILE *file;

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

/* Whether the vCPU's thread sleeps, and goes on to. */
static inline bool sleeps(struct vm *vm)
{
	int times = 0;

	for (int n = 0; n < 1000 && times < 20; n++) {
		times = asleep(vm->tid) ? times + 1 : 0;
		rest(10);
	}
	return times == 20;
}

/* The thread that asks for the page, once one does. */
static inline pid_t asks_for_page(struct vm *vm)
{
	struct pollfd asked = { .fd = vm->uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&asked, 1, 30000) != 1 || read(vm->uffd, &msg, sizeof(msg)) != sizeof(msg))
		quit(KSFT_FAIL, "the page was never asked for%s", vm->trouble);
	if ((pid_t)msg.arg.pagefault.feat.ptid != vm->tid && !(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE))
		vm->worker_reads = true;
	return msg.arg.pagefault.feat.ptid;
}

/* The page was asked for by a worker: whether the vCPU sleeps. */
static inline bool still_halted(struct vm *vm)
{
	if (asks_for_page(vm) == vm->tid)
		quit(KSFT_SKIP, "the vCPU's own thread asks for the page: no asynchronous page faults");
	return sleeps(vm);
}

static inline void wait_for_halt(struct vm *vm)
{
	if (!still_halted(vm))
		quit(KSFT_FAIL, "the vCPU is not halted");
}

/* When the guest says this: at once, once the page is there, or never. */
static inline enum outcome outcome_of(struct vm *vm, int said)
{
	enum outcome found = AT_ONCE;

	if (!ends(vm, AT_ONCE_MS)) {
		provide_page(vm);
		found = WITH_PAGE;
	}
	if (!ends(vm, PATIENCE_MS)) {
		stop(vm);
		return NEVER;
	}
	return vm->said == said ? found : ODD;
}

/* The same where the page is there already, so that it says nothing. */
static inline enum outcome outcome_without_page(struct vm *vm, int said)
{
	if (!ends(vm, PATIENCE_MS)) {
		stop(vm);
		return NEVER;
	}
	return vm->said == said ? AT_ONCE : ODD;
}

/* ---- TAP ---- */

static inline void plan_tests(int tests)
{
	tests_planned = tests;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%d\n", tests);
}

static inline bool tell(const struct vm *vm, const char *cause, const char *way, enum outcome found, enum outcome right)
{
	bool good = found == right && !vm->trouble[0] && !vm->worker_reads;

	printf("%s %d - %s %s: the vCPU runs %s%s\n", good ? "ok" : "not ok", ++tests_done, cause, way,
	       outcome_names[found], vm->trouble);
	return good;
}

#endif
