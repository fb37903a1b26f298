// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a Linux guest does, and what it tells about it (guest-images/linux/README.md).  Results go to I/O port 0xe9,
 * one line at a time; the console is only a log.  Process 1, and never returns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESULT_PORT 0xe9
#define PAGE 4096

static void sleep_forever(void)
{
	for (;;)
		pause();
}

static void die(const char *what)
{
	printf("workload: %s: %s\n", what, strerror(errno));
	sleep_forever();	/* no END: the run is not complete */
}

/* The kernel writes for us: under an emulated processor an OUT at CPL 3 was refused once though ioperm() had allowed it. */
static int port = -1;

static void open_result_port(void)
{
	port = open("/dev/port", O_WRONLY);
	if (port < 0 && ioperm(RESULT_PORT, 1, 1))
		die("neither /dev/port nor ioperm() for the result port");
}

static void put(char c)
{
	if (port < 0)
		outb(c, RESULT_PORT);
	else if (pwrite(port, &c, 1, RESULT_PORT) != 1)
		die("writing to the result port");
}

static void result(const char *format, ...)
{
	char line[4096];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (length < 0 || length >= (int)sizeof(line))
		die("a result line is too long");
	for (const char *p = line; *p; p++)
		put(*p);
	put('\n');
	printf("workload: %s\n", line);
}

/* The value of name=value on the kernel command line, or "". */
static const char *option(const char *name)
{
	static char text[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	size_t length = strlen(name);

	if (n < 0)
		die("/proc/cmdline");
	close(fd);
	text[n] = 0;
	for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, length) && word[length] == '=')
			return word + length + 1;
	return "";
}

/* The row "HYP: Hypervisor callback interrupts" of /proc/interrupts: its counts in CPU order, or none without it. */
static void hypervisor_interrupts(void)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[4096], counts[4096] = "";

	if (!file)
		die("/proc/interrupts");
	while (fgets(line, sizeof(line), file)) {
		char *p = strstr(line, "HYP:"), *end;
		size_t used = 0;

		if (!p)
			continue;
		for (p += 4;; p = end) {
			unsigned long count = strtoul(p, &end, 10);

			if (end == p)
				break;
			used += snprintf(counts + used, sizeof(counts) - used, " %lu", count);
		}
	}
	fclose(file);
	result("HYP%s", *counts ? counts : " none");
}

static void wait_for_go(void)
{
	FILE *console = fopen("/dev/ttyS0", "r");
	char line[256];

	if (!console)
		die("/dev/ttyS0");
	while (fgets(line, sizeof(line), console)) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strcmp(line, "go")) {
			fclose(console);
			return;
		}
	}
	die("ttyS0 ended before the line go");
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static unsigned char content(size_t page)
{
	return (unsigned char)(page * 7 + 1);
}

/* What touches the pages: this process, children of it, or an L2 that it runs. */
struct toucher {
	void (*prepare)(unsigned char *memory, size_t pages);
	size_t (*touch)(const unsigned char *memory, size_t pages);	/* how many were wrong */
	int who;							/* whose faults count, for getrusage() */
};

static void no_preparation(unsigned char *memory, size_t pages)
{
	(void)memory;
	(void)pages;
}

static int is_wrong(const unsigned char *memory, size_t page)
{
	return *(const volatile unsigned char *)(memory + page * PAGE) != content(page);
}

static size_t touch_directly(const unsigned char *memory, size_t pages)
{
	size_t wrong = 0;

	for (size_t p = 0; p < pages; p++)
		wrong += is_wrong(memory, p);
	return wrong;
}

/*
 * Tasks that touch the same pages, each from another one on: several sleep at a time, each for a page of its own, and now
 * and then one comes to a page that another sleeps for.
 */
#define TASKS		4
static int go_pipe[2];

static void prepare_tasks(unsigned char *memory, size_t pages)
{
	if (pipe(go_pipe))
		die("pipe");
	for (size_t task = 0; task < TASKS; task++) {
		pid_t child = fork();
		size_t wrong = 0;
		char go;

		if (child < 0)
			die("fork");
		if (child)
			continue;
		if (read(go_pipe[0], &go, 1) != 1)
			_exit(255);
		for (size_t n = 0; n < pages; n++)
			wrong += is_wrong(memory, (n + task * pages / TASKS) % pages);
		_exit(wrong < 254 ? wrong : 254);
	}
}

static size_t touch_by_tasks(const unsigned char *memory, size_t pages)
{
	size_t wrong = 0;

	(void)memory;
	(void)pages;
	if (write(go_pipe[1], "gogo", TASKS) != TASKS)
		die("pipe");
	for (int task = 0; task < TASKS; task++) {
		int status;

		if (wait(&status) < 0)
			die("wait");
		if (!WIFEXITED(status) || WEXITSTATUS(status) == 255) {
			errno = ECHILD;
			die("a task was killed");
		}
		wrong += WEXITSTATUS(status);
	}
	return wrong;
}

/*
 * A virtual machine of one vCPU in flat 32-bit protected mode at CPL 3, IOPL 3: it reads the byte at ESI into AL, writes
 * AL to a port, and goes round.  The pages are its memory from 1 GiB on, its code lies in the page before: where this
 * guest itself has no memory, so that a trace of its host cannot take one address for the other.
 */
#define L2_PAGES	0x40000000
#define L2_CODE		(L2_PAGES - PAGE)
#define L2_PORT		0x10
static const unsigned char l2_program[] = {
	0x8a, 0x06,		/* mov (%esi), %al */
	0xe6, L2_PORT,		/* out %al, $L2_PORT */
	0xeb, 0xfa,		/* jmp to the begin */
};
static int l2_vcpu = -1;
static struct kvm_run *l2_run;

static int kvm_call(int fd, unsigned long request, void *argument, const char *what)
{
	int result = ioctl(fd, request, argument);

	if (result < 0)
		die(what);
	return result;
}

static void l2_memory(int vm, unsigned slot, uint64_t gpa, void *memory, size_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = bytes, .userspace_addr = (uintptr_t)memory,
	};

	kvm_call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

static struct kvm_segment l2_segment(unsigned selector, unsigned type)
{
	struct kvm_segment s = {
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1,
	};

	return s;
}

static void prepare_l2(unsigned char *memory, size_t pages)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;
	void *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_sregs sregs;
	int size;

	if (kvm < 0 || code == MAP_FAILED)
		die("/dev/kvm");
	memcpy(code, l2_program, sizeof(l2_program));
	vm = kvm_call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	l2_memory(vm, 0, L2_CODE, code, PAGE);
	l2_memory(vm, 1, L2_PAGES, memory, pages * PAGE);
	l2_vcpu = kvm_call(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	size = kvm_call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
	l2_run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, l2_vcpu, 0);
	if (l2_run == MAP_FAILED)
		die("struct kvm_run");
	for (int i = 0; i < size; i += PAGE)	/* so that the next page fault is the one on purpose */
		(void)*((volatile unsigned char *)l2_run + i);
	kvm_call(l2_vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs = l2_segment(0x0b, 11);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = l2_segment(0x13, 3);
	sregs.cr0 |= 1;
	kvm_call(l2_vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

/*
 * One touch by the L2, and then a page fault of this process in kernel mode: a read into a page that it has not touched
 * yet.  A kernel that finds a flag there that was left behind panics.
 */
static unsigned char read_by_l2(size_t page)
{
	struct kvm_regs regs = { .rip = L2_CODE, .rsi = L2_PAGES + page * PAGE, .rflags = 0x3002 };
	unsigned char *fresh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int zero = open("/dev/zero", O_RDONLY);
	unsigned char found;

	kvm_call(l2_vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	while (ioctl(l2_vcpu, KVM_RUN, NULL) < 0)
		if (errno != EINTR && errno != EAGAIN)
			die("KVM_RUN");
	if (l2_run->exit_reason != KVM_EXIT_IO || l2_run->io.port != L2_PORT) {
		printf("workload: the L2 left with reason %u\n", l2_run->exit_reason);
		errno = EIO;
		die("KVM_RUN");
	}
	found = *((unsigned char *)l2_run + l2_run->io.data_offset);
	if (fresh == MAP_FAILED || zero < 0 || read(zero, fresh, PAGE) != PAGE)
		die("/dev/zero");
	munmap(fresh, PAGE);
	close(zero);
	return found;
}

static size_t touch_by_l2(const unsigned char *memory, size_t pages)
{
	size_t wrong = 0;

	(void)memory;
	for (size_t p = 0; p < pages; p++)
		wrong += read_by_l2(p) != content(p);
	return wrong;
}

/*
 * NMIs that read user memory.  CPU 1 has CPU 0 show its stack, again and again, which it asks for by an NMI.  An event of
 * perf at the trace point of NMI handlers walks this process's stack from RBP on, and RBP names a page that was never
 * touched: so each NMI makes a page fault of its own.  One that comes between a token's #PF and its handler finds the
 * flags of the token.
 */
#define TRACING		"/sys/kernel/tracing"
static unsigned char *nowhere;
static pid_t sender;

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity: the workload nmi needs two CPUs");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

static void watch_nmi_handlers(void)
{
	const char *path = TRACING "/events/nmi/nmi_handler/id";
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .sample_period = 1, .exclude_callchain_kernel = 1,
		.sample_type = PERF_SAMPLE_CALLCHAIN,
	};
	FILE *file;
	unsigned id;
	int fd;

	if (mount("tracefs", TRACING, "tracefs", 0, NULL) && errno != EBUSY)
		die("tracefs");
	file = fopen(path, "r");
	if (!file || fscanf(file, "%u", &id) != 1)
		die(path);
	fclose(file);
	attr.config = id;
	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0 || mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
		die("perf_event_open");
}

static void prepare_nmi(unsigned char *memory, size_t pages)
{
	char go;

	(void)memory;
	(void)pages;
	nowhere = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (nowhere == MAP_FAILED || pipe(go_pipe))
		die("pipe");
	sender = fork();
	if (sender < 0)
		die("fork");
	if (!sender) {
		run_on(1);
		write_file("/proc/sys/kernel/printk", "1");	/* the stacks are for the log only */
		if (read(go_pipe[0], &go, 1) != 1)
			_exit(1);
		for (;;)
			write_file("/proc/sysrq-trigger", "l");
	}
	run_on(0);
	watch_nmi_handlers();
}

static size_t touch_under_nmis(const unsigned char *memory, size_t pages)
{
	size_t wrong = 0;

	if (write(go_pipe[1], "g", 1) != 1)
		die("pipe");
	for (size_t p = 0; p < pages; p++) {
		const unsigned char *page = memory + p * PAGE;
		unsigned char *frame = nowhere, found;

		asm volatile("xchg %%rbp, %1\n\tmovb (%2), %0\n\txchg %%rbp, %1"
			     : "=a"(found), "+D"(frame) : "S"(page) : "memory");
		wrong += found != content(p);
	}
	kill(sender, SIGKILL);
	waitpid(sender, NULL, 0);
	return wrong;
}

static const struct toucher directly = { no_preparation, touch_directly, RUSAGE_SELF };
static const struct toucher by_tasks = { prepare_tasks, touch_by_tasks, RUSAGE_CHILDREN };
static const struct toucher under_nmis = { prepare_nmi, touch_under_nmis, RUSAGE_SELF };
static const struct toucher by_l2 = { prepare_l2, touch_by_l2, RUSAGE_SELF };

static const struct {
	const char *workload;
	const struct toucher *toucher;
} touchers[] = { { "touch", &directly }, { "tasks", &by_tasks }, { "nmi", &under_nmis }, { "l2", &by_l2 } };

static const struct toucher *find_toucher(const char *workload)
{
	for (size_t i = 0; i < sizeof(touchers) / sizeof(*touchers); i++)
		if (!strcmp(workload, touchers[i].workload))
			return touchers[i].toucher;
	return NULL;
}

static void touch(size_t pages, const struct toucher *toucher)
{
	unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rusage before, after;
	size_t wrong;
	uint64_t begin, end;

	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (size_t p = 0; p < pages; p++)
		for (size_t i = 0; i < PAGE; i++)	/* not one value for all: such pages are special to some swap code */
			memory[p * PAGE + i] = i ? (unsigned char)((p + i) * 2654435761u >> 13) : content(p);
	toucher->prepare(memory, pages);
	hypervisor_interrupts();
	result("READY");
	wait_for_go();
	getrusage(toucher->who, &before);
	begin = now_us();
	wrong = toucher->touch(memory, pages);
	end = now_us();
	getrusage(toucher->who, &after);
	result("TOUCHED %zu pages %zu wrong %llu us", pages, wrong, (unsigned long long)(end - begin));
	result("FAULTS %ld major %ld minor", after.ru_majflt - before.ru_majflt, after.ru_minflt - before.ru_minflt);
	hypervisor_interrupts();
}

int main(void)
{
	char workload[64], nonce[32];
	const struct toucher *toucher;
	struct utsname name;

	setvbuf(stdout, NULL, _IOLBF, 0);
	open_result_port();
	snprintf(workload, sizeof(workload), "%s", option("apf.workload"));
	snprintf(nonce, sizeof(nonce), "%s", option("apf.nonce"));
	uname(&name);
	result("WORKLOAD %s %s %ld cpus", workload, name.release, sysconf(_SC_NPROCESSORS_ONLN));
	toucher = find_toucher(workload);
	if (!strcmp(workload, "boot")) {
		hypervisor_interrupts();
	} else if (toucher) {
		size_t pages = strtoul(option("apf.pages"), NULL, 10);

		if (!pages) {
			errno = EINVAL;
			die("apf.pages");
		}
		touch(pages, toucher);
	} else {
		errno = EINVAL;
		die("apf.workload");
	}
	result("END %s", nonce);
	sleep_forever();
}
