// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a Linux guest does, and what it tells about it (guest-images/linux/README.md).  Results go to I/O port 0xe9,
 * one line at a time; the console is only a log.  Process 1, and never returns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define RESULT_PORT 0xe9

__attribute__((noreturn)) static void sleep_forever(void)
{
	for (;;)
		pause();
}

void die(const char *what)
{
	printf("workload: %s: %s\n", what, strerror(errno));
	sleep_forever();	/* no END: the run is not complete */
}

/* The kernel writes for us: an emulated processor refuses an OUT at CPL 3 once the VMM has written the vCPU's state. */
static int port = -1;

/* A #GP: that of a page fault has another code, and ends the process as it would have without this. */
static void refused(int number, siginfo_t *info, void *context)
{
	static const char text[] = "<0>workload: OUT was refused though ioperm() had allowed it\n";
	int log;

	(void)context;
	if (info->si_code != SI_KERNEL) {
		signal(number, SIG_DFL);
		return;
	}
	log = open("/dev/kmsg", O_WRONLY);	/* the console's lines of the kernel are looked at */
	if (log < 0 || write(log, text, sizeof(text) - 1) < 0)
		die("/dev/kmsg");
	sleep_forever();
}

static void open_result_port(void)
{
	struct sigaction action = { .sa_sigaction = refused, .sa_flags = SA_SIGINFO };

	port = open("/dev/port", O_WRONLY);
	if (port >= 0)
		return;
	if (ioperm(RESULT_PORT, 1, 1) || sigaction(SIGSEGV, &action, NULL))
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

unsigned char content(size_t page)
{
	return (unsigned char)(page * 7 + 1);
}

static void no_preparation(unsigned char *memory, size_t pages)
{
	(void)memory;
	(void)pages;
}

int is_wrong(const unsigned char *memory, size_t page)
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

static const struct toucher directly = { no_preparation, touch_directly, RUSAGE_SELF };

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
