// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NMIs that read user memory.  CPU 1 has CPU 0 show its stack, again and again, which it asks for by an NMI.  An event of
 * perf at the trace point of NMI handlers walks this process's stack from RBP on, and RBP names a page that was never
 * touched: so each NMI makes a page fault of its own.  One that comes between a token's #PF and its handler finds the
 * flags of the token.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define TRACING		"/sys/kernel/tracing"
static unsigned char *nowhere;
static int go_pipe[2];
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

const struct toucher under_nmis = { prepare_nmi, touch_under_nmis, RUSAGE_SELF };
