// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a Linux guest does, and what it tells about it (guest-images/linux/README.md).  Results go to I/O port 0xe9,
 * one line at a time; the console is only a log.  Process 1, and never returns.
 */
#include <errno.h>
#include <fcntl.h>
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

static int port = -1;	/* /dev/port where the kernel has no ioperm() */

static void open_result_port(void)
{
	if (!ioperm(RESULT_PORT, 1, 1))
		return;
	port = open("/dev/port", O_WRONLY);
	if (port < 0)
		die("neither ioperm() nor /dev/port for the result port");
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

static void touch(size_t pages)
{
	unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rusage before, after;
	size_t wrong = 0;
	uint64_t begin, end;

	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (size_t p = 0; p < pages; p++)
		for (size_t i = 0; i < PAGE; i++)	/* not one value for all: such pages are special to some swap code */
			memory[p * PAGE + i] = i ? (unsigned char)((p + i) * 2654435761u >> 13) : content(p);
	hypervisor_interrupts();
	result("READY");
	wait_for_go();
	getrusage(RUSAGE_SELF, &before);
	begin = now_us();
	for (size_t p = 0; p < pages; p++)
		wrong += *(volatile unsigned char *)(memory + p * PAGE) != content(p);
	end = now_us();
	getrusage(RUSAGE_SELF, &after);
	result("TOUCHED %zu pages %zu wrong %llu us", pages, wrong, (unsigned long long)(end - begin));
	result("FAULTS %ld major %ld minor", after.ru_majflt - before.ru_majflt, after.ru_minflt - before.ru_minflt);
	hypervisor_interrupts();
}

int main(void)
{
	char workload[64], nonce[32];
	struct utsname name;

	setvbuf(stdout, NULL, _IOLBF, 0);
	open_result_port();
	snprintf(workload, sizeof(workload), "%s", option("apf.workload"));
	snprintf(nonce, sizeof(nonce), "%s", option("apf.nonce"));
	uname(&name);
	result("WORKLOAD %s %s %ld cpus", workload, name.release, sysconf(_SC_NPROCESSORS_ONLN));
	if (!strcmp(workload, "boot")) {
		hypervisor_interrupts();
	} else if (!strcmp(workload, "touch")) {
		size_t pages = strtoul(option("apf.pages"), NULL, 10);

		if (!pages) {
			errno = EINVAL;
			die("apf.pages");
		}
		touch(pages);
	} else {
		errno = EINVAL;
		die("apf.workload");
	}
	result("END %s", nonce);
	sleep_forever();
}
