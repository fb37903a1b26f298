// SPDX-License-Identifier: GPL-2.0-or-later
/* From the entry to READY, and from the end of the programs to the end mark (docs/formats/probe.md section 2). */
#include "machine.h"
#include "functions.h"

static int has_begun(const struct vcpu *v, u32 index)
{
	const struct record *r = AT(struct record, LOG_GPA + v->id * LOG_BYTES);

	for (u32 n = 0; n < control->log_count[v->id]; n++)
		if (r[n].kind == LOG_START && r[n].item == index)
			return 1;
	return 0;
}

/*
 * Where this life of the vCPU goes on.  An INIT or a reset may have come between the step to an item and its record: it
 * has not begun then.
 */
static u32 position(const struct vcpu *v)
{
	u32 next = control->next[v->id], last = NONE;

	for (u32 p = 0; p < next; p++)
		if (items[p].vcpu == v->id)
			last = p;
	return last == NONE || has_begun(v, items[last].index) ? next : last;
}

static void run_vcpu(struct vcpu *v)
{
	v->next = position(v);
	v->done = control->done[v->id];
	if (header->flags & L2_GUEST)
		l2_setup(v);
	if (control->host_vcpu == v->id && control->state == STATE_HOST && (items[control->host_item].flags & ITEM_TPR)) {
		v->raised = 1;	/* before anything waits: sched.c:raise_priority() */
		set_priority(15);
	}
	apf_setup(v);
	if (control->host_vcpu == v->id && control->state != STATE_HOST) {
		control->host_vcpu = NONE;	/* the reset came before the agent was asked */
	} else if (control->host_vcpu == v->id) {	/* the reset came in a HOST item, which ends now */
		const struct item *i = &items[control->host_item];

		host_wait(v);
		log_record(v, LOG_END, i->index, i->value, 0);
		lower_priority(v);
		control->done[v->id] = ++v->done;
	}
	run_program(v);
	log_record(v, LOG_DONE, NONE, header->nonce, v->done);
	v->ended = 1;
}

/* A sum over the vCPUs: an INIT may come at any instruction of one that ends, so that nothing else could be undone. */
static u32 count_ended(void)
{
	u32 sum = 0;

	for (u32 n = 0; n < header->vcpus; n++)
		sum += vcpus[n].ended;
	return sum;
}

/* The agent has let the guest go.  One look: between two the state may go from 0 to READY. */
static int has_started(void)
{
	u32 state = control->state;

	return state != 0 && state != STATE_READY;
}

static void log_boot(struct vcpu *v)
{
	log_record(v, LOG_BOOT, NONE, v->apic_id, (u64)v->features << 32 | v->features_leaf << 16 | control->boots);
}

void ap_main(u32 id)
{
	struct vcpu *v = &vcpus[id];

	v->ended = 0;	/* in a life before an INIT it may have */
	vcpu_init(v, id);
	AT(struct apf_data, SHARED_GPA + 4096 * id)->flags = 0;
	AT(struct apf_data, SHARED_GPA + 4096 * id)->token = 0;
	apic_enable(v, (header->flags & LAPIC_BEFORE_EN) != 0);
	log_boot(v);
	v->booted = 1;
	if (header->flags & LAPIC_BEFORE_EN)
		while (!v->started)
			sti_hlt_cli();
	else
		while (!has_started())
			;
	run_vcpu(v);
	halt();
}

/* A control page with this nonce and a running program: the machine was reset, and the program goes on. */
static int continues(void)
{
	return control->magic == CONTROL_MAGIC && control->nonce == header->nonce &&
	       (control->state == STATE_RUNNING || control->state == STATE_HOST);
}

static void fresh_memory(void)
{
	for (u32 i = 0; i < 4096 / 8; i++)
		AT(volatile u64, CONTROL_GPA)[i] = 0;
	control->host_vcpu = NONE;
}

void bsp_main(u32 start_info)
{
	struct vcpu *v = &vcpus[0];
	const char *wrong = load_program(start_info);
	u32 state;

	build_idt();
	l2_build_tables(!wrong && (header->l2 & L2_MOVED));
	if (wrong) {
		fresh_memory();
		control->magic = CONTROL_MAGIC;
		panic(wrong);
	}
	if (!continues())
		fresh_memory();
	state = control->state;
	control->ended = 0;
	for (u32 n = 0; n < header->vcpus; n++) {
		vcpus[n].ended = 0;
		AT(struct apf_data, SHARED_GPA + 4096 * n)->flags = 0;
		AT(struct apf_data, SHARED_GPA + 4096 * n)->token = 0;
	}
	outb(0x21, 0xff);	/* a PC's firmware leaves the timer running through the PIC */
	outb(0xa1, 0xff);
	vcpu_init(v, 0);
	touch_own_memory();
	log_boot(v);
	apic_enable(v, (header->flags & LAPIC_BEFORE_EN) != 0);
	control->nonce = header->nonce;
	control->tsc_khz = find_tsc_khz(v);
	for (u32 n = 1; n < header->vcpus; n++)
		vcpu_start(n);
	control->boots++;
	control->magic = CONTROL_MAGIC;
	if (!state) {
		print("apf-probe: ready, nonce ");
		print_hex(header->nonce);
		print("\n");
		set_state(STATE_READY);
		while (control->go == 0)
			;
		set_state(STATE_RUNNING);
	}
	for (u32 n = 1; n < header->vcpus; n++)
		if (header->flags & LAPIC_BEFORE_EN)
			send_ipi(v, vcpus[n].apic_id, 0x4000 | VEC_START);
	run_vcpu(v);
	do {
		u32 sum = count_ended();

		if (sum != control->ended)
			control->ended = sum;
	} while (control->ended < header->vcpus);
	/* No farewell on the serial line: the run is still traced, and any exit to userspace in it is a finding. */
	set_state(STATE_DONE);
	control->end_mark = header->nonce ^ END_MARK_XOR;
	halt();
}
