// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tasks that touch the same pages, each from another one on: several sleep at a time, each for a page of its own, and now
 * and then one comes to a page that another sleeps for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

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

const struct toucher by_tasks = { prepare_tasks, touch_by_tasks, RUSAGE_CHILDREN };
