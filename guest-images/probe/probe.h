/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structures of the probe guest.  Those with an offset in a comment are a contract: docs/formats.md sections 3 to 5.
 * Compiled for 64 and for 32 bits, so no pointer and no long in a structure.
 */
#ifndef PROBE_H
#define PROBE_H

#include "layout.h"

typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;

#define NONE	0xffffffffu
#define ALL_ONES 0xffffffffffffffffull
#define AT(type, gpa) ((type *)(__UINTPTR_TYPE__)(gpa))

/* Linux include/uapi/asm/kvm_para.h (arch/x86) */
#define MSR_KVM_SYSTEM_TIME_NEW	0x4b564d01
#define MSR_KVM_ASYNC_PF_EN	0x4b564d02
#define MSR_KVM_ASYNC_PF_INT	0x4b564d06
#define MSR_KVM_ASYNC_PF_ACK	0x4b564d07
#define EN_EFFECTIVE		9u	/* enabled and delivery as interrupt: kvm_pv_async_pf_enabled() */

enum { STATE_READY = 1, STATE_RUNNING, STATE_HOST, STATE_DONE, STATE_PANIC };

struct control_page {
	u64 magic;		/* 0 */
	u64 nonce;		/* 8 */
	volatile u32 state;	/* 16 */
	volatile u32 go;	/* 20 */
	u32 host_index;		/* 24 */
	volatile u32 ended;	/* 28 */
	u64 end_mark;		/* 32 */
	u64 tsc_khz;		/* 40 */
	u32 host_entries;	/* 48 */
	u32 pad[3];
	volatile u32 log_count[MAX_VCPUS]; /* 64 */
	/* From 512 on the guest's own: what must survive a reset of the machine. */
	u8 pad2[512 - 64 - 4 * MAX_VCPUS];
	u32 boots;		/* 512 */
	u32 go_seen;		/* 516: go before the HOST item that the guest waits in */
	u32 host_vcpu;		/* 520: all ones: no HOST item is waited in */
	u32 host_item;		/* 524 */
	u32 next[MAX_VCPUS];	/* 528: position in the program from which each vCPU goes on */
	u32 done[MAX_VCPUS];	/* items ended */
};
#define CONTROL_MAGIC	0x3150424f52504641ull
#define END_MARK_XOR	0xa5a5a5a5a5a5a5a5ull

struct items_header {
	u64 magic;	/* 0 */
	u64 nonce;	/* 8 */
	u32 version;	/* 16 */
	u32 vcpus;	/* 20 */
	u32 count;	/* 24 */
	u32 flags;	/* 28 */
	u64 en_flags;	/* 32 */
	u64 en_gpa;	/* 40 */
	u32 vector;	/* 48 */
	u32 pad[3];
};
#define ITEMS_MAGIC	0x314d455449465041ull
enum { APF_ZERO_TOKEN = 1, APF_ACK = 2, APF_ACK_FIRST = 4, IDLE_HLT = 8, LAPIC_BEFORE_EN = 16, LAPIC_AFTER_EN = 32 };

enum { OP_TOUCH, OP_WRMSR, OP_LAPIC, OP_PAGING, OP_TIMER, OP_CLEAR_TOKEN, OP_PAUSE, OP_WAIT, OP_HOST, OP_COUNT };
enum { ITEM_INTERRUPTS = 1, ITEM_SHADOW = 2, ITEM_NO_PAGING = 4, ITEM_WAIT = 8 };

struct item {
	u32 index;	/* 0 */
	u8 op;		/* 4 */
	u8 vcpu;	/* 5 */
	u8 write;	/* 6 */
	u8 cpl;		/* 7 */
	u32 flags;	/* 8 */
	u32 msr;	/* 12 */
	u64 gpa;	/* 16 */
	u64 value;	/* 24 */
	u32 pause_us;	/* 32 */
	u32 pad[7];
};

enum {
	LOG_BOOT = 1, LOG_START, LOG_END, LOG_TOKEN, LOG_READY, LOG_IRQ, LOG_FAULT, LOG_CR2, LOG_STAGE, LOG_MSR, LOG_WAKE,
	LOG_IDLE, LOG_DONE
};

struct record {
	u64 tsc;
	u16 kind;
	u16 vcpu;
	u32 item;
	u64 a;
	u64 b;
};

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

struct vcpu {
	u64 self;		/* VCPU_SELF: %gs:0 */
	u64 sched_rsp;		/* VCPU_SCHED_RSP */
	u64 apf_gpa;		/* the shared area that EN names, if it is RAM; else the vCPU's own */
	u32 id;
	u32 apic_id;
	u32 x2apic;
	u32 current;		/* position of the item whose access runs, or NONE */
	u32 next;		/* position from which the next item is looked for */
	u32 done;		/* items ended */
	u32 timer_us;
	u32 early_count;
	volatile u32 waiting;	/* items put aside, not yet runnable */
	volatile u32 runnable;
	volatile u32 started;	/* VEC_START came */
	u32 pad;
	u32 early[64];		/* READY tokens that came before their TOKEN */
	u8 ready_vector[256];
	u64 tss[16];
	u64 gdt[8];
	u8 trap_stack[8192] __attribute__((aligned(16)));
	u8 stack[16384] __attribute__((aligned(16)));
};

extern struct vcpu vcpus[MAX_VCPUS];
extern struct context contexts[MAX_ITEMS];

#define control AT(struct control_page, CONTROL_GPA)
#define header AT(struct items_header, PROGRAM_GPA)
#define items AT(struct item, PROGRAM_GPA + sizeof(struct items_header))

#endif
