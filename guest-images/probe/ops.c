// SPDX-License-Identifier: GPL-2.0-or-later
/* The ops that end where they start (all but touch and wait, which are sched.c's). */
#include "ready.h"
#include "functions.h"
#include "numbers.h"

_Static_assert(__builtin_offsetof(struct job, cr0) == JOB_CR0, "numbers.h");

/* Write an MSR, log what it is afterwards (if it can be read), and follow what the write means.  0, or 13 for #GP. */
int write_msr(struct vcpu *v, u32 item, u32 msr, u64 value)
{
	int error = wrmsr_safe(msr, value);
	u64 now;

	if (!rdmsr_safe(msr, &now))
		log_record(v, LOG_MSR, item, msr, now);
	if (msr == MSR_KVM_ASYNC_PF_INT && !error && (value & 0xff) >= 32)
		v->ready_vector[value & 0xff] = 1;
	if (msr == MSR_KVM_ASYNC_PF_EN && !error) {
		if ((value & EN_EFFECTIVE) == EN_EFFECTIVE)
			apf_area(v, value);
		else
			wake(v, NONE);	/* the host forgets them: as Linux kvm_guest_cpu_offline() */
	}
	return error;
}

/* INT, then EN, as the header says. */
void apf_setup(struct vcpu *v)
{
	u64 en = (header->en_gpa == OWN_AREA ? SHARED_GPA + 4096 * v->id : header->en_gpa) | header->en_flags;

	apic_enable(v, (header->flags & LAPIC_BEFORE_EN) != 0);
	if (header->vector >= 32 && header->vector < 256)
		v->ready_vector[header->vector] = 1;
	if (header->vector && write_msr(v, NONE, MSR_KVM_ASYNC_PF_INT, header->vector))
		log_record(v, LOG_END, NONE, header->vector, 13);
	if (header->en_flags && write_msr(v, NONE, MSR_KVM_ASYNC_PF_EN, en))
		log_record(v, LOG_END, NONE, en, 13);
	if ((header->flags & LAPIC_AFTER_EN) && !(header->flags & LAPIC_BEFORE_EN))
		apic_enable(v, 1);
}

/* One vCPU at a time speaks to the agent: there is one place in the control page for it. */
int host_turn(struct vcpu *v)
{
	u32 nobody = NONE;

	return __atomic_compare_exchange_n(&control->host_vcpu, &nobody, v->id, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/*
 * Interrupts on, unless the item keeps them off, by RFLAGS.IF, by the LAPIC's task priority (CR8, which is raised by
 * then) or by an interrupt of the highest priority that is in service; and off again.  One of a low priority in service
 * keeps none off that matters.
 */
static void interrupts_on(struct vcpu *v, const struct item *i)
{
	if (i->flags & ITEM_IN_SERVICE) {
		v->held = 0;
		send_ipi(v, v->apic_id, 0x4000 | (i->flags & ITEM_INTERRUPTS ? VEC_HELD_LOW : VEC_HELD_HIGH));
	}
	if (i->flags & (ITEM_INTERRUPTS | ITEM_TPR | ITEM_IN_SERVICE))
		sti();
	while ((i->flags & ITEM_IN_SERVICE) && !v->held)
		;
}

static void interrupts_off(struct vcpu *v, const struct item *i)
{
	cli();
	if (i->flags & ITEM_IN_SERVICE)
		apic_write(v, APIC_EOI, 0);
}

/* The agent has the word until go changes. */
void host_wait(struct vcpu *v)
{
	const struct item *i = &items[control->host_item];
	u32 index = control->host_index;

	interrupts_on(v, i);
	while (control->go == control->go_seen)
		;
	interrupts_off(v, i);
	set_state(STATE_RUNNING);
	log_record(v, LOG_STAGE, i->index, index, 1);
	__atomic_store_n(&control->host_vcpu, NONE, __ATOMIC_SEQ_CST);
}

static void host(struct vcpu *v, const struct item *i)
{
	log_record(v, LOG_STAGE, i->index, i->value, 0);
	control->go_seen = control->go;
	control->host_index = i->value;
	control->host_item = i - items;
	control->host_entries++;
	set_state(STATE_HOST);
	host_wait(v);
}

static void paging(const struct item *i)
{
	struct job job = {
		.kind = i->value ? JOB_NOTHING : JOB_PAUSE,
		.flags = i->flags,
		.cr0 = CR0_PG | (i->value == 2 ? CR0_WP : 0),
	};

	job.until = deadline_us(i->pause_us);
	mode32_run(&job);
}

static void pause(struct vcpu *v, const struct item *i)
{
	u64 until = deadline_us(i->pause_us);

	interrupts_on(v, i);
	pause_until(until);
	interrupts_off(v, i);
}

/* A triple fault, which every VMM takes for a reset.  The log and control page are in memory and stay. */
static void reset(struct vcpu *v, const struct item *i)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none = { 0, 0 };

	log_record(v, LOG_END, i->index, i->value, 0);
	control->done[v->id] = ++v->done;
	asm volatile("lidt %0; int3" : : "m"(none));
	__builtin_unreachable();
}

/* Until a vCPU has taken the interrupt that starts it, which is sent once: an INIT, or an eject, would drop that. */
static void await_start(u32 vcpu)
{
	while ((header->flags & LAPIC_BEFORE_EN) && !vcpus[vcpu].started)
		;
}

/*
 * QEMU's ACPI CPU hotplug controller of a q35 (its docs/specs/acpi_cpu_hotplug.rst), which a guest's ACPI code would
 * write to: 0 to the selector ends its legacy mode; then which CPU, and bit 3 of the control field ejects it.
 */
static void eject(u32 vcpu)
{
	outl(CPU_HOTPLUG_PORT, 0);
	outl(CPU_HOTPLUG_PORT, vcpu);
	outb(CPU_HOTPLUG_PORT + 4, 1 << 3);
}

void perform(struct vcpu *v, const struct item *i)
{
	u64 value = i->value;
	int error = 0;

	log_record(v, LOG_START, i->index, i->value, 0);
	switch (i->op) {
	case OP_WRMSR:
		error = write_msr(v, i->index, i->msr, i->value);
		break;
	case OP_LAPIC:
		if (i->value & 2)
			apic_base(v, i->value & 1);
		else
			apic_enable(v, i->value & 1);
		break;
	case OP_PAGING:
		paging(i);
		break;
	case OP_TIMER:
		apic_timer(v, i->value);
		break;
	case OP_CLEAR_TOKEN:
		value = FOUND | __atomic_exchange_n(&AT(struct apf_data, v->apf_gpa)->token, 0, __ATOMIC_SEQ_CST);
		break;
	case OP_PAUSE:
		pause(v, i);
		break;
	case OP_HOST:
		host(v, i);
		break;
	case OP_EJECT:
		await_start(i->value);
		eject(i->value);
		break;
	case OP_INIT:
		await_start(i->value);
		vcpu_start(i->value);
		break;
	case OP_RESET:
		reset(v, i);
		break;
	case OP_PAGE_FAULT:
		v->current = i - items;
		touch_safe(UNMAPPED_GVA);
		v->current = NONE;
	}
	log_record(v, LOG_END, i->index, value, error);
	v->done++;
}
