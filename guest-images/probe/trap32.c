// SPDX-License-Identifier: GPL-2.0-or-later
/* 32-bit code, run with CR0.PG=0: the work itself and the traps that come meanwhile. */
#include "ready.h"
#include "functions.h"

struct frame32 {
	u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
	u32 vector, error;
	u32 eip, cs, eflags;
};

void job32(struct job *job);
void trap32(struct frame32 *f);

static u32 read32(u32 gpa, int shadow)
{
	u32 value;

	if (shadow)
		asm volatile("sti\n\tmovl (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
	else
		asm volatile("movl (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
	return value;
}

static void write32(u32 gpa, u32 value, int shadow)
{
	if (shadow)
		asm volatile("sti\n\tmovl %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
	else
		asm volatile("movl %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
}

/* Two halves make the 8 bytes; only the first of them can find the page missing. */
void job32(struct job *job)
{
	int shadow = (job->flags & ITEM_SHADOW) != 0;
	u32 gpa = (u32)job->gpa;

	if ((job->flags & ITEM_INTERRUPTS) && !shadow)
		sti();
	switch (job->kind) {
	case JOB_PAUSE:
		while ((long long)(rdtsc() - job->until) < 0)
			;
		break;
	case JOB_READ:
		job->value = read32(gpa, shadow);
		job->value |= (u64)read32(gpa + 4, 0) << 32;
		break;
	case JOB_WRITE:
		write32(gpa, (u32)job->value, shadow);
		write32(gpa + 4, (u32)(job->value >> 32), 0);
		break;
	}
	cli();
}

/*
 * A token cannot put the access aside here (the next item may need paging), so the handler waits for its ready.
 * Only hosts that inject tokens with paging off get here (kvm_can_deliver_async_pf() in Linux 5.10 has no such check).
 */
static void await_ready(struct vcpu *v)
{
	struct context *c = &contexts[v->current];

	while (c->state == WAITS_FOR_READY)
		sti_hlt_cli();
	c->state = WAITS_NOT;
	v->runnable--;
	log_record(v, LOG_WAKE, item_index(v->current), c->token, 0);
}

void trap32(struct frame32 *f)
{
	struct vcpu *v = this_vcpu();
	u64 cr2 = read_cr2();

	if (f->vector == 14 && take_token(v, cr2)) {
		await_ready(v);
		return;
	}
	if (f->vector >= 32 && take_interrupt(v, f->vector, f->eip))
		return;
	fault(v, f->vector, f->error, f->eip, cr2, f->eflags);
}
