// SPDX-License-Identifier: GPL-2.0-or-later
/* One vCPU: descriptor tables, local APIC, and how the further ones are started. */
#include "machine.h"
#include "functions.h"

struct vcpu vcpus[MAX_VCPUS] __attribute__((aligned(4096)));
struct context contexts[MAX_ITEMS];
u64 idt64[512] __attribute__((aligned(4096)));
u64 idt32[256];

_Static_assert(__builtin_offsetof(struct vcpu, self) == VCPU_SELF, "numbers.h");
_Static_assert(__builtin_offsetof(struct vcpu, sched_rsp) == VCPU_SCHED_RSP, "numbers.h");
_Static_assert(sizeof(struct control_page) <= 4096, "one page");
_Static_assert(NONE == NO_ITEM, "a record of no item");

#define MSR_APIC_BASE	0x1b
#define APIC_BASE_ENABLE	(1 << 11)
#define APIC_BASE_X2APIC	(1 << 10)
#define MSR_GS_BASE	0xc0000101

/*
 * Interrupt gates, as probe_abi.py:gate has them; only VEC_ENDED may be raised from CPL 3.  An NMI has a stack of its
 * own: it may come in a handler.  IST 3 is where an item's page may be the stack of an event.
 */
void build_idt(void)
{
	for (u64 n = 0; n < 256; n++) {
		u64 to = (u64)trap_stubs + 16 * n, to32 = (u64)trap32_stubs + 16 * n;
		u64 type = n == VEC_ENDED ? 0xee00 : 0x8e00;

		type |= n == VEC_NMI ? 2 : n == VEC_PF || n == VEC_DELIVERED ? 3 : 1;	/* IST */
		idt64[2 * n] = (to & 0xffff) | SEL_CODE64 << 16 | type << 32 | (to >> 16 & 0xffff) << 48;
		idt64[2 * n + 1] = 0;
		idt32[n] = (to32 & 0xffff) | SEL_CODE32 << 16 | 0x8e00ull << 32 | (to32 >> 16 & 0xffff) << 48;
	}
}

/* 0: the guest's own. */
void load_idt(u64 gpa)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(idt64) - 1, gpa ? gpa : (u64)idt64 };

	asm volatile("lidt %0" : : "m"(pointer));
}

/* Where IST 3 begins, or, of an NMI, IST 2; 0: where IST 1 does, and on the NMI's own stack. */
void event_stack(struct vcpu *v, int by, u64 end)
{
	u64 own = by == BY_NMI ? (u64)v->nmi_stack + sizeof(v->nmi_stack) : (u64)v->trap_stack + sizeof(v->trap_stack);

	((volatile u32 *)v->tss)[by == BY_NMI ? 11 : 13] = end ? end : own;	/* offset 44 or 52 */
}

/*
 * Where IST 1 and 3 begin while an L2 runs, which shares the TSS; 0: where those of L1 do.  L1 may have its L2 back in the
 * middle of a handler, and then takes an interrupt itself.
 */
void interrupt_stack(struct vcpu *v, u64 end)
{
	((volatile u32 *)v->tss)[9] = end ? end : (u64)v->trap_stack + sizeof(v->trap_stack);	/* offset 36 */
	event_stack(v, BY_TOKEN, end);
}

/* What ran or was put aside when this vCPU was started anew is nobody's any more. */
static void forget_items(struct vcpu *v)
{
	v->current = NONE;
	v->waiting = v->runnable = v->early_count = v->in_l2 = 0;
	for (u32 p = 0; p < header->count; p++)
		if (items[p].vcpu == v->id)
			contexts[p].state = WAITS_NOT;
}

/* Linux arch/x86/kernel/kvm.c: kvm_cpuid_base(); a VMM that shows Hyper-V's leaves has KVM's 0x100 behind them. */
static void read_features(struct vcpu *v)
{
	const u32 bases[] = { [LEAF_FIRST] = 0x40000000, [LEAF_BEHIND] = 0x40000100 };

	v->features = 0;
	v->features_leaf = LEAF_NONE;
	for (u32 leaf = LEAF_FIRST; leaf <= LEAF_BEHIND; leaf++) {
		struct cpuid_result r = cpuid(bases[leaf]);

		if (r.b != 0x4b4d564b || r.c != 0x564b4d56 || r.d != 0x4d)	/* "KVMKVMKVM" */
			continue;
		v->features = cpuid(bases[leaf] + 1).a;
		v->features_leaf = leaf;
		return;
	}
}

void vcpu_init(struct vcpu *v, u32 id)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(v->gdt) - 1, (u64)v->gdt };
	extern const char idt64_pointer[];
	u64 tss = (u64)v->tss, ist1 = (u64)v->trap_stack + sizeof(v->trap_stack);
	u64 ist2 = (u64)v->nmi_stack + sizeof(v->nmi_stack);

	v->self = (u64)v;
	v->id = id;
	forget_items(v);
	v->apf_gpa = SHARED_GPA + 4096 * id;
	for (u32 n = 0; n < 6; n++)
		v->gdt[n] = boot_gdt[n];
	v->gdt[6] = (sizeof(v->tss) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 | (tss >> 24 & 0xff) << 56;
	v->gdt[7] = tss >> 32;
	((u32 *)v->tss)[9] = ist1;		/* offset 36: IST 1 */
	((u32 *)v->tss)[11] = ist2;		/* offset 44: IST 2 */
	event_stack(v, BY_TOKEN, 0);
	((u32 *)v->tss)[1] = ist1;		/* offset 4: RSP0, not used as all gates have an IST */
	((u16 *)v->tss)[51] = sizeof(v->tss);	/* offset 102: no I/O permission bitmap */
	asm volatile("lgdt %0" : : "m"(pointer));
	asm volatile("mov %0, %%gs" : : "r"(SEL_USER_DATA));
	wrmsr(MSR_GS_BASE, (u64)v);
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
	asm volatile("lidt %0" : : "m"(*idt64_pointer));

	read_features(v);
	v->x2apic = cpuid(1).c >> 21 & 1;
	v->apic_base = rdmsr(MSR_APIC_BASE);	/* with x2APIC if an INIT came */
	wrmsr(MSR_APIC_BASE, v->apic_base | APIC_BASE_ENABLE);
	v->apic_base &= ~(u64)(APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	if (v->x2apic)
		wrmsr(MSR_APIC_BASE, v->apic_base | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	v->apic_id = v->x2apic ? apic_read(v, APIC_ID) : apic_read(v, APIC_ID) >> 24;
	v->raised = 0;	/* the task priority is 0 behind a reset and an INIT */
}

/* The enable bit of IA32_APIC_BASE.  x2APIC mode is left with it, and entered from xAPIC mode only. */
void apic_base(const struct vcpu *v, int on)
{
	wrmsr(MSR_APIC_BASE, v->apic_base | (on ? APIC_BASE_ENABLE : 0));
	if (on && v->x2apic)
		wrmsr(MSR_APIC_BASE, v->apic_base | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

/* SPIV bit 8.  Clearing it masks the LVT entries, so those that are used are set again with it. */
void apic_enable(struct vcpu *v, int on)
{
	apic_write(v, APIC_SVR, VEC_SPURIOUS | (on ? 1 << 8 : 0));
	if (on && (header->flags & TAKES_NMIS))
		apic_write(v, APIC_LVT_LINT1, 0x400);	/* where a PC has its NMI */
	if (on && v->timer_us)
		apic_timer(v, v->timer_us);
}

/* Periodic; the timer's clock is 1 GHz in KVM and in QEMU.  0 stops it. */
void apic_timer(struct vcpu *v, u32 period_us)
{
	u64 count = (u64)period_us * 1000;
	u32 divide = 0xb;	/* by 1 */

	if (count >> 32) {
		count /= 128;
		divide = 0xa;	/* by 128 */
	}
	v->timer_us = period_us;
	apic_write(v, APIC_TIMER_DIVIDE, divide);
	apic_write(v, APIC_LVT_TIMER, period_us ? 1 << 17 | VEC_TIMER : 1 << 16 | VEC_TIMER);
	apic_write(v, APIC_TIMER_INITIAL, count);
}

void send_ipi(const struct vcpu *v, u32 apic_id, u32 icr)
{
	if (v->x2apic) {
		wrmsr(0x830, (u64)apic_id << 32 | icr);
		return;
	}
	apic_write(v, APIC_ICR2, apic_id << 24);
	apic_write(v, APIC_ICR, icr);
}

/* The APIC ID of this vCPU: of the bits of apic_ids that of its number. */
static u32 apic_id_of(u32 id)
{
	u64 left = header->apic_ids;

	if (!left)
		return id;
	while (id--)
		left &= left - 1;
	return __builtin_ctzll(left);
}

/* INIT and SIPI to the vCPU of this number, and wait until it has begun anew: its life before may run, and write
 * records, until the INIT comes to it.  How long that takes is not ours to say: KVM waits in it for the works that it
 * cancels, and these for whoever brings their pages.
 */
void vcpu_start(u32 id)
{
	struct vcpu *self = this_vcpu();

	for (u32 i = 0; i < (u32)(trampoline_end - trampoline); i++)
		AT(volatile char, TRAMPOLINE_GPA)[i] = trampoline[i];
	boot_stack_pointer = (u32)(u64)vcpus[id].stack + sizeof(vcpus[id].stack);
	boot_argument = id;
	boot_function = (u32)(u64)ap_main;
	vcpus[id].booted = 0;
	send_ipi(self, apic_id_of(id), 0x4500);
	pause_until(deadline_us(1000));
	send_ipi(self, apic_id_of(id), 0x4600 | TRAMPOLINE_GPA >> 12);
	while (!vcpus[id].booted)
		;
}
