// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The program of one vCPU: items start in order; an access that got a token is put aside and runs again when it is
 * ready.  This code runs with IF=0 and opens a window before each choice, but for a write of an MSR, or of the LAPIC, that wants none.
 */
#include "ready.h"
#include "functions.h"

void finish(struct vcpu *v, const struct item *i, u64 value)
{
	log_record(v, LOG_END, i->index, value, 0);
	v->done++;
}

static u32 next_of(const struct vcpu *v, u32 p)
{
	while (p < header->count && items[p].vcpu != v->id)
		p++;
	return p;
}

/* The delivery has brought the page: what an access by an instruction would have written or read. */
static void finish_delivered(struct vcpu *v, const struct item *i)
{
	if (i->write)
		*AT(volatile u64, i->gpa + 8) = i->gpa ^ header->nonce;
	finish(v, i, *AT(volatile u64, i->gpa + (i->write ? 8 : 0)));
}

/* Run the item's access until it ends or gets a token. */
static void run_context(struct vcpu *v, u32 position)
{
	struct context *c = &contexts[position];
	const struct item *i = &items[position];
	int stop;

	if (i->flags & ITEM_LEVEL2) {
		l2_run(v, position);
		return;
	}
	if (i->by && i->write)
		event_stack(v, i->by, i->gpa + 4096);
	else if (i->by)
		load_idt(i->gpa);
	if (i->by == BY_INTERRUPT)
		send_ipi(v, v->apic_id, 0x4000 | VEC_DELIVERED);
	v->current = position;
	stop = context_run(&c->frame);
	v->current = NONE;
	if (i->flags & ITEM_GIF_CLEAR)
		asm volatile("stgi");	/* a token leaves it 0 */
	if (i->by) {
		event_stack(v, i->by, 0);
		load_idt(0);
	}
	if (stop == STOP_ENDED && i->by)
		finish_delivered(v, i);
	else if (stop == STOP_ENDED)
		finish(v, i, i->write ? c->frame.rsi : c->frame.rax);
}

/*
 * The same of an item that begins.  Its token is delivered on the page of the item behind it, if that asks for it,
 * which has been performed then.
 */
static void begin_context(struct vcpu *v, u32 position)
{
	u32 behind = next_of(v, position + 1);

	if (behind == header->count || items[behind].by != BY_TOKEN) {
		run_context(v, position);
		return;
	}
	event_stack(v, BY_TOKEN, items[behind].gpa + 4096);
	run_context(v, position);
	event_stack(v, BY_TOKEN, 0);
	if (contexts[position].state != WAITS_NOT) {
		v->next = behind + 1;
		control->next[v->id] = v->next;
		log_record(v, LOG_START, items[behind].index, items[behind].gpa, 0);
		finish_delivered(v, &items[behind]);
	}
}

static void touch_without_paging(struct vcpu *v, const struct item *i, u32 position)
{
	struct job job = {
		.kind = i->write ? JOB_WRITE : JOB_READ,
		.gpa = i->gpa + (i->write ? 8 : 0),
		.value = i->gpa ^ header->nonce,
		.flags = i->flags,
		.cr0 = CR0_PG,
	};

	v->current = position;
	mode32_run(&job);
	v->current = NONE;
	finish(v, i, job.value);
}

static void start_touch(struct vcpu *v, u32 position)
{
	const struct item *i = &items[position];
	struct frame *f = &contexts[position].frame;
	int shadow = (i->flags & ITEM_SHADOW) != 0;

	log_record(v, LOG_START, i->index, i->gpa, 0);
	if (i->flags & ITEM_NO_PAGING) {
		touch_without_paging(v, i, position);
		return;
	}
	if ((i->flags & ITEM_GIF_CLEAR) && wrmsr_safe(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME))
		panic("CLGI needs a processor with SVM");
	if (i->by)
		f->rip = (u64)(i->by == BY_INTERRUPT ? access_interrupted : i->by == BY_NMI ? access_nmi : access_fault);
	else if (i->flags & ITEM_LEVEL2)
		f->rip = (u64)(i->write ? l2_write : l2_read);
	else if (i->flags & ITEM_GIF_CLEAR)
		f->rip = (u64)(i->write ? access_gif_write : access_gif_read);
	else if (shadow)
		f->rip = (u64)(i->write ? access_shadow_write : access_shadow_read);
	else
		f->rip = (u64)(i->write ? access_write : access_read);
	f->rdi = i->by ? UNMAPPED_GVA : i->gpa + (i->write ? 8 : 0);
	if ((i->flags & ITEM_LEVEL2) && (header->l2 & L2_MOVED))
		f->rdi += MOVED_GPA;
	f->rsi = i->gpa ^ header->nonce;
	if (i->by == BY_NMI) {	/* fixed delivery mode NMI, to itself */
		f->rdi = v->x2apic ? 0 : XAPIC_BASE + APIC_ICR;
		f->rcx = 0x830;
		f->rax = 0x4400;
		f->rdx = v->apic_id;
		if (!v->x2apic)
			apic_write(v, APIC_ICR2, v->apic_id << 24);
	}
	f->cs = i->cpl ? SEL_USER_CODE : SEL_CODE64;
	f->ss = i->cpl ? SEL_USER_DATA : SEL_SS0;
	f->rsp = (u64)v->stack;		/* the access uses none */
	/* bit 1 is always set; IF; IOPL 3, so that STI is allowed at CPL 3 */
	f->rflags = 0x3002 | ((i->flags & ITEM_INTERRUPTS) && !shadow ? 1 << 9 : 0);
	begin_context(v, position);
}

/* Of the runnable items the one that started first. */
static void resume(struct vcpu *v)
{
	for (u32 p = 0; p < v->next; p++) {
		struct context *c = &contexts[p];

		if (items[p].vcpu != v->id || c->state != RUNNABLE)
			continue;
		c->state = WAITS_NOT;
		v->runnable--;
		log_record(v, LOG_WAKE, items[p].index, c->token, 0);
		run_context(v, p);
		return;
	}
	panic("runnable items miscounted");
}

static void idle(struct vcpu *v)
{
	log_record(v, LOG_IDLE, NONE, 0, 0);
	while (!v->runnable) {
		if (header->flags & IDLE_HLT) {
			sti_hlt_cli();
		} else {
			sti();
			while (!v->runnable)
				;
			cli();
		}
	}
	log_record(v, LOG_IDLE, NONE, 1, 0);
}

/* May nothing be started because an item put aside says `wait`? */
static int gated(const struct vcpu *v)
{
	for (u32 p = 0; p < v->next && v->waiting; p++)
		if (items[p].vcpu == v->id && contexts[p].state == WAITS_FOR_READY && (items[p].flags & ITEM_WAIT))
			return 1;
	return 0;
}

/* Does the next item want what came with interrupts off to wait still? */
static int keeps_off(const struct vcpu *v, u32 p)
{
	return !v->runnable && p < header->count && (items[p].op == OP_WRMSR || items[p].op == OP_LAPIC) &&
	       !(items[p].flags & ITEM_INTERRUPTS);
}

/* Per vCPU: all items before this position have ended, or were put aside and do not say `wait`. */
static volatile u32 past[MAX_VCPUS];

static int is_past(const struct item *i)
{
	return past[items[i->value].vcpu] > i->value;
}

/* Until another vCPU is past an item, or there is something to resume: what comes meanwhile is taken. */
static void await_other(const struct vcpu *v, const struct item *i)
{
	sti();
	while (!is_past(i) && !v->runnable)
		;
	cli();
}

/*
 * The task priority of an item that has it, from before it begins.  CR8 is written where an interrupt that waits would
 * be taken: QEMU's TCG aborts at a write of CR8 while its guest has a virtual interrupt pending
 * (target/i386/tcg/system/misc_helper.c:helper_write_crN, cpu_interrupt without the BQL), by which KVM on AMD asks for
 * the window of an interrupt that waits for RFLAGS.IF.
 */
static void raise_priority(struct vcpu *v)
{
	v->raised = 1;
	sti();
	set_priority(15);
	cli();
}

void lower_priority(struct vcpu *v)
{
	if (v->raised)
		set_priority(0);
	v->raised = 0;
}

void run_program(struct vcpu *v)
{
	u32 paused = NONE, wait_started = NONE;

	for (;;) {
		u32 p = next_of(v, v->next);
		const struct item *i = &items[p];

		if (!keeps_off(v, p)) {
			sti();
			cli();
		}
		if (!v->runnable && !gated(v))
			past[v->id] = v->next;
		if (v->runnable) {
			lower_priority(v);
			resume(v);
		} else if (gated(v) || (p == header->count && v->waiting)) {
			idle(v);
		} else if (p == header->count) {
			return;
		} else if (i->op == OP_WAIT && v->waiting && wait_started == p) {
			idle(v);
		} else if (i->pause_us && i->op != OP_PAUSE && i->op != OP_PAGING && paused != p) {
			u64 until = deadline_us(i->pause_us);

			sti();
			pause_until(until);
			cli();
			paused = p;
		} else if ((i->flags & ITEM_TPR) && !v->raised) {
			raise_priority(v);
			continue;	/* what has come meanwhile is resumed first */
		} else if (i->op == OP_HOST && !host_turn(v)) {
			lower_priority(v);	/* with the window for interrupts at the top */
			continue;
		} else if (i->op == OP_AFTER && !is_past(i)) {
			await_other(v, i);
			continue;
		} else if (i->op == OP_WAIT) {
			if (wait_started != p)
				log_record(v, LOG_START, i->index, i->value, 0);
			wait_started = p;
			if (v->waiting)
				continue;
			v->next = p + 1;
			control->next[v->id] = v->next;	/* of a wait not before: nothing is kept from one that is cut off */
			finish(v, i, i->value);
		} else {
			v->next = p + 1;
			control->next[v->id] = v->next;
			if (i->op == OP_TOUCH)
				start_touch(v, p);
			else
				perform(v, i);
			lower_priority(v);
		}
		control->done[v->id] = v->done;
	}
}
