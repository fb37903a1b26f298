// SPDX-License-Identifier: GPL-2.0-or-later
/* What the workloads of a Linux guest share. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stddef.h>

#define PAGE 4096

/* What touches the pages: this process, children of it, or an L2 that it runs. */
struct toucher {
	void (*prepare)(unsigned char *memory, size_t pages);
	size_t (*touch)(const unsigned char *memory, size_t pages);	/* how many were wrong */
	int who;							/* whose faults count, for getrusage() */
};

extern const struct toucher by_tasks, by_l2, under_nmis;

/* Say what failed and why (errno), and never return: without END the run is not complete. */
void die(const char *what) __attribute__((noreturn));

/* The first byte of a page. */
unsigned char content(size_t page);
int is_wrong(const unsigned char *memory, size_t page);

#endif
