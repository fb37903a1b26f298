// SPDX-License-Identifier: GPL-2.0-or-later
/* What a 64-bit trap means: end of an access, token, ready, timer, NMI, #GP of a probed MSR, or the end of the run. */
#include "ready.h"
#include "functions.h"

extern const char wrmsr_at[], rdmsr_at[], msr_fixup[], touch_at[], touch_fixup[];

/* Is this the event of the item that runs, whose delivery made its access? */
static int delivered(struct vcpu *v, const struct frame *f, u64 cr2)
{
	if (v->current == NONE || items[v->current].by == BY_INSTRUCTION)
		return 0;
	if (f->vector == VEC_DELIVERED) {
		apic_write(v, APIC_EOI, 0);
		return 1;
	}
	if (f->vector == VEC_NMI)	/* blocked until the next IRET, by which the next item begins */
		return items[v->current].by == BY_NMI;
	return f->vector == VEC_PF && f->rip == (u64)access_fault && cr2 == UNMAPPED_GVA;
}

void trap(struct frame *f)
{
	struct vcpu *v = this_vcpu();
	u64 cr2 = read_cr2();

	if (f->vector == VEC_NMI && (header->flags & TAKES_NMIS)) {
		log_nmi(v, f->rip);
		return;
	}
	if (v->in_l2 && f->vector < 32)
		l2_fault(v, f, cr2);
	if (f->vector == VEC_PF && f->rip == (u64)touch_at) {
		log_record(v, LOG_PAGE_FAULT, item_index(v->current), cr2, AT(struct apf_data, v->apf_gpa)->flags);
		f->rip = (u64)touch_fixup;
		return;
	}
	if ((f->vector == VEC_ENDED && v->current != NONE) || delivered(v, f, cr2)) {
		contexts[v->current].frame = *f;
		context_leave(STOP_ENDED);
	}
	if (f->vector == VEC_PF && take_token(v, cr2)) {
		contexts[v->current].frame = *f;
		context_leave(STOP_TOKEN);
	}
	if (f->vector == 13 && (f->rip == (u64)wrmsr_at || f->rip == (u64)rdmsr_at)) {
		f->rip = (u64)msr_fixup;
		return;
	}
	if (f->vector >= 32 && take_interrupt(v, f->vector, f->rip))
		return;
	fault(v, f->vector, f->error, f->rip, cr2, f->rflags);
}
