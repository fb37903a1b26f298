/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structures of the probe guest's own; those that the harness knows too are in layout.h.
 * Compiled for 64 and for 32 bits, so no pointer and no long in a structure.
 */
#ifndef PROBE_H
#define PROBE_H

#include "numbers.h"

#define NONE	0xffffffffu	/* no position in the program; as an item of a record, NO_ITEM */
#define AT(type, gpa) ((type *)(__UINTPTR_TYPE__)(gpa))

#define MSR_EFER		0xc0000080
#define EFER_SVME		(1u << 12)
#define CR0_WP			(1u << 16)
#define CR0_PG			(1u << 31)

/* Linux include/uapi/asm/kvm_para.h (arch/x86) */
#define MSR_KVM_SYSTEM_TIME_NEW	0x4b564d01
#define MSR_KVM_ASYNC_PF_EN	0x4b564d02
#define MSR_KVM_ASYNC_PF_INT	0x4b564d06
#define MSR_KVM_ASYNC_PF_ACK	0x4b564d07
#define EN_EFFECTIVE		9u	/* enabled and delivery as interrupt: kvm_pv_async_pf_enabled() */

/* Linux include/uapi/asm/kvm_para.h: struct kvm_vcpu_pv_apf_data, the part the host writes */
struct apf_data {
	volatile u32 flags;
	volatile u32 token;
};

/* What entry.S pushes, lowest address first. */
struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

enum { WAITS_NOT, WAITS_FOR_READY, RUNNABLE };

/* An item that was started: by its position in the program. */
struct context {
	struct frame frame;
	u32 token;
	volatile u8 state;
};

#define LATE_NMIS 5

struct vcpu {
	u64 self;		/* VCPU_SELF: %gs:0 */
	u64 sched_rsp;		/* VCPU_SCHED_RSP */
	u64 apic_base;		/* IA32_APIC_BASE with the LAPIC disabled */
	u64 apf_gpa;		/* the shared area that EN names, if it is RAM; else the vCPU's own */
	u32 id;
	u32 apic_id;
	u32 x2apic;
	u32 features;		/* EAX of KVM's CPUID leaf of features, 0 without */
	u32 features_leaf;	/* ... and where that is: LEAF_* */
	u32 current;		/* position of the item whose access runs, or NONE */
	u32 next;		/* position from which the next item is looked for */
	u32 done;		/* items ended */
	u32 timer_us;
	u32 early_count;
	volatile u32 waiting;	/* items put aside, not yet runnable */
	volatile u32 runnable;
	volatile u32 started;	/* VEC_START came */
	volatile u32 in_l2;	/* between VMRUN and its exit */
	volatile u32 ended;	/* its program has */
	volatile u32 booted;	/* it has begun since vcpu_start, and written that down */
	u32 raised;		/* the task priority is that of an item that keeps interrupts off by it */
	volatile u32 held;	/* VEC_HELD_LOW or VEC_HELD_HIGH came */
	volatile u32 logging;	/* a record is being written */
	volatile u32 late_nmis;	/* NMIs that came meanwhile, or in L2 */
	volatile u32 logged_nmis;	/* of those */
	volatile u32 late_rip[LATE_NMIS];	/* where they came */
	u32 early[64];		/* READY tokens that came before their TOKEN */
	u8 ready_vector[256];
	u64 tss[16];
	u64 gdt[8];
	u8 trap_stack[8192] __attribute__((aligned(16)));
	u8 nmi_stack[4096] __attribute__((aligned(16)));
	u8 stack[16384] __attribute__((aligned(16)));
};

extern struct vcpu vcpus[MAX_VCPUS];
extern struct context contexts[MAX_ITEMS];

#define control AT(struct control_page, CONTROL_GPA)
#define header AT(struct items_header, PROGRAM_GPA)
#define items AT(struct item, PROGRAM_GPA + sizeof(struct items_header))

#endif
