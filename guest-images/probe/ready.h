/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's half of the async page fault protocol (Linux Documentation/virt/kvm/x86/msr.rst): what a #PF and an
 * interrupt mean, and which item a token belongs to.  Used by the 64-bit and by the 32-bit trap handler.
 */
#ifndef READY_H
#define READY_H

#include "machine.h"

static inline u32 item_index(u32 position)
{
	return position == NONE ? NONE : items[position].index;
}

static inline void make_runnable(struct vcpu *v, u32 position)
{
	contexts[position].state = RUNNABLE;
	v->waiting--;
	v->runnable++;
}

/* Make every item of this vCPU that waits for `token` (all ones: for any) runnable; return the last one's position. */
static inline u32 wake(struct vcpu *v, u32 token)
{
	u32 found = NONE;

	for (u32 i = 0; i < v->next && v->waiting; i++) {
		if (items[i].vcpu != v->id || contexts[i].state != WAITS_FOR_READY)
			continue;
		if (token != NONE && contexts[i].token != token)
			continue;
		make_runnable(v, i);
		found = i;
	}
	return found;
}

/* Is this #PF a token?  Then the flags are cleared, it is logged, and the running item waits for it from now on. */
static inline int take_token(struct vcpu *v, u64 cr2)
{
	struct apf_data *data = AT(struct apf_data, v->apf_gpa);
	u32 flags = data->flags;
	struct context *c;

	if (!(flags & 1) || v->current == NONE)
		return 0;
	data->flags = 0;
	log_record(v, LOG_TOKEN, item_index(v->current), cr2, flags);
	c = &contexts[v->current];
	c->token = (u32)cr2;
	c->state = WAITS_FOR_READY;
	v->waiting++;
	for (u32 i = 0; i < v->early_count; i++)
		if (v->early[i] == c->token) {
			v->early[i] = v->early[--v->early_count];
			make_runnable(v, v->current);
			break;
		}
	return 1;
}

static inline void take_ready(struct vcpu *v, u32 vector)
{
	struct apf_data *data = AT(struct apf_data, v->apf_gpa);
	u32 token = data->token, flags = header->flags;
	u32 found = wake(v, token);

	log_record(v, LOG_READY, token == NONE ? NONE : item_index(found), token, vector);
	if (found == NONE && token && token != NONE && v->early_count < 64)
		v->early[v->early_count++] = token;
	if ((flags & APF_ACK) && (flags & APF_ACK_FIRST))
		wrmsr(MSR_KVM_ASYNC_PF_ACK, 1);
	if (flags & APF_ZERO_TOKEN)
		data->token = 0;
	if ((flags & APF_ACK) && !(flags & APF_ACK_FIRST))
		wrmsr(MSR_KVM_ASYNC_PF_ACK, 1);
}

/* An interrupt that this guest knows?  Handled, logged and ended then. */
static inline int take_interrupt(struct vcpu *v, u32 vector, u64 rip)
{
	if (v->ready_vector[vector]) {
		apic_write(v, APIC_EOI, 0);
		take_ready(v, vector);
		return 1;
	}
	if (vector == VEC_HELD_LOW || vector == VEC_HELD_HIGH) {
		v->held = 1;	/* in service until the item is through */
		return 1;
	}
	if (vector != VEC_TIMER && vector != VEC_START && vector != VEC_SPURIOUS)
		return 0;
	if (vector == VEC_START)
		v->started = 1;
	else
		log_record(v, LOG_IRQ, NONE, vector, rip);
	if (vector != VEC_SPURIOUS)
		apic_write(v, APIC_EOI, 0);
	return 1;
}

static inline _Noreturn void fault(struct vcpu *v, u32 vector, u32 error, u64 rip, u64 cr2, u64 rflags)
{
	log_record(v, LOG_FAULT, item_index(v->current), vector | (u64)error << 32, rip);
	log_record(v, LOG_CR2, item_index(v->current), cr2, rflags);
	panic("unexpected exception, see FAULT in the log");
}

#endif
