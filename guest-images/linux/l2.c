// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A virtual machine of one vCPU in flat 32-bit protected mode at CPL 3, IOPL 3: it reads the byte at ESI into AL, writes
 * AL to a port, and goes round.  The pages are its memory from 1 GiB on, its code lies in the page before: where this
 * guest itself has no memory, so that a trace of its host cannot take one address for the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "workload.h"

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

const struct toucher by_l2 = { prepare_l2, touch_by_l2, RUSAGE_SELF };
