/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Made from harness/contract/probe_abi.py by `make layout`: change it there. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define CONTROL_GPA	0x800000
#define SHARED_GPA	0x801000
#define PROGRAM_GPA	0x840000
#define PROGRAM_END	0xa00000
#define LOG_GPA	0xa00000
#define LOG_BYTES	0x40000
#define POOL_GPA	0x1000000
#define LOG_RECORDS	8192
#define MAX_VCPUS	16
#define MAX_ITEMS	1024
#define ITEMS_VERSION	1
#define VEC_TIMER	0x40
#define VEC_START	0x41
#define VEC_DELIVERED	0x42
#define VEC_HELD_LOW	0x22
#define VEC_HELD_HIGH	0xfe
#define VEC_INJECTED	0xff
#define VEC_ENDED	0x81
#define UNMAPPED_GVA	0x123456000
#define MOVED_GPA	0x80000000
#define STUBS_GPA	0x100000

#ifndef __ASSEMBLY__

typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;

#define CONTROL_MAGIC	0x3150424f52504641ull
#define END_MARK_XOR	0xa5a5a5a5a5a5a5a5ull
#define ITEMS_MAGIC	0x314d455449465041ull
#define OWN_AREA	0xffffffffffffffffull
#define FOUND	0x100000000ull
#define NO_ITEM	0xffffffffu

enum {
	STATE_NONE = 0,
	STATE_READY = 1,
	STATE_RUNNING = 2,
	STATE_HOST = 3,
	STATE_DONE = 4,
	STATE_PANIC = 5,
};
enum {
	LOG_BOOT = 1,
	LOG_START = 2,
	LOG_END = 3,
	LOG_TOKEN = 4,
	LOG_READY = 5,
	LOG_IRQ = 6,
	LOG_FAULT = 7,
	LOG_CR2 = 8,
	LOG_STAGE = 9,
	LOG_MSR = 10,
	LOG_WAKE = 11,
	LOG_IDLE = 12,
	LOG_DONE = 13,
	LOG_L2_EXIT = 14,
	LOG_L2_WORDS = 15,
	LOG_L2_FAULT = 16,
	LOG_PAGE_FAULT = 17,
	LOG_NMI = 18,
};
enum {
	LEAF_NOT_READ = 0,
	LEAF_NONE = 1,
	LEAF_FIRST = 2,
	LEAF_BEHIND = 3,
};
enum {
	APF_ZERO_TOKEN = 1,
	APF_ACK = 2,
	APF_ACK_FIRST = 4,
	IDLE_HLT = 8,
	LAPIC_BEFORE_EN = 16,
	LAPIC_AFTER_EN = 32,
	L2_GUEST = 64,
	TAKES_NMIS = 128,
};
enum {
	ITEM_INTERRUPTS = 1,
	ITEM_SHADOW = 2,
	ITEM_NO_PAGING = 4,
	ITEM_WAIT = 8,
	ITEM_LEVEL2 = 16,
	ITEM_GIF_CLEAR = 32,
	ITEM_TPR = 64,
	ITEM_IN_SERVICE = 128,
};
enum {
	L2_NPT = 1,
	L2_INTERCEPT_PF = 2,
	L2_INTERCEPT_INTR = 4,
	L2_INTERCEPT_VINTR = 8,
	L2_INTR_MASKING = 16,
	L2_L1_INTERRUPTS = 32,
	L2_INJECT = 64,
	L2_VIRQ = 128,
	L2_MOVED = 256,
};
enum {
	SVM_EXIT_EXCP_PF = 78,
	SVM_EXIT_INTR = 96,
	SVM_EXIT_VINTR = 100,
	SVM_EXIT_VMMCALL = 129,
};
enum {
	BY_INSTRUCTION = 0,
	BY_INTERRUPT = 1,
	BY_EXCEPTION = 2,
	BY_TOKEN = 3,
	BY_NMI = 4,
	BY_COUNT = 5,
};
enum {
	OP_TOUCH = 0,
	OP_WRMSR = 1,
	OP_LAPIC = 2,
	OP_PAGING = 3,
	OP_TIMER = 4,
	OP_CLEAR_TOKEN = 5,
	OP_PAUSE = 6,
	OP_WAIT = 7,
	OP_HOST = 8,
	OP_RESET = 9,
	OP_PAGE_FAULT = 10,
	OP_EJECT = 12,
	OP_INIT = 11,
	OP_AFTER = 13,
	OP_COUNT = 14,
};

struct control_page {
	u64 magic;	/* 0 */
	u64 nonce;	/* 8 */
	volatile u32 state;	/* 16 */
	volatile u32 go;	/* 20: the agent's: one more for each hand-over */
	u32 host_index;	/* 24 */
	volatile u32 ended;	/* 28: vCPUs whose program has ended, once the boot CPU's has */
	u64 end_mark;	/* 32: nonce ^ END_MARK_XOR, written last */
	u64 tsc_khz;	/* 40 */
	u32 host_entries;	/* 48 */
	u8 pad0[12];
	volatile u32 log_count[MAX_VCPUS];	/* 64: records in the log of each vCPU */
	u8 pad1[384];
	u32 boots;	/* 512: from here on the guest's own: what must survive a reset of the machine */
	u32 go_seen;	/* 516: go before the HOST item that the guest waits in */
	u32 host_vcpu;	/* 520: all ones: no HOST item is waited in */
	u32 host_item;	/* 524 */
	u32 next[MAX_VCPUS];	/* 528: position in the program from which each vCPU goes on */
	u32 done[MAX_VCPUS];	/* 592: items ended */
};
_Static_assert(__builtin_offsetof(struct control_page, magic) == 0, "magic");
_Static_assert(__builtin_offsetof(struct control_page, nonce) == 8, "nonce");
_Static_assert(__builtin_offsetof(struct control_page, state) == 16, "state");
_Static_assert(__builtin_offsetof(struct control_page, go) == 20, "go");
_Static_assert(__builtin_offsetof(struct control_page, host_index) == 24, "host_index");
_Static_assert(__builtin_offsetof(struct control_page, ended) == 28, "ended");
_Static_assert(__builtin_offsetof(struct control_page, end_mark) == 32, "end_mark");
_Static_assert(__builtin_offsetof(struct control_page, tsc_khz) == 40, "tsc_khz");
_Static_assert(__builtin_offsetof(struct control_page, host_entries) == 48, "host_entries");
_Static_assert(__builtin_offsetof(struct control_page, log_count) == 64, "log_count");
_Static_assert(__builtin_offsetof(struct control_page, boots) == 512, "boots");
_Static_assert(__builtin_offsetof(struct control_page, go_seen) == 516, "go_seen");
_Static_assert(__builtin_offsetof(struct control_page, host_vcpu) == 520, "host_vcpu");
_Static_assert(__builtin_offsetof(struct control_page, host_item) == 524, "host_item");
_Static_assert(__builtin_offsetof(struct control_page, next) == 528, "next");
_Static_assert(__builtin_offsetof(struct control_page, done) == 592, "done");

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
	u32 l2;	/* 52 */
	u64 apic_ids;	/* 56: bit n: of a vCPU, in the order of their numbers; 0: the numbers are the ids */
};
_Static_assert(__builtin_offsetof(struct items_header, magic) == 0, "magic");
_Static_assert(__builtin_offsetof(struct items_header, nonce) == 8, "nonce");
_Static_assert(__builtin_offsetof(struct items_header, version) == 16, "version");
_Static_assert(__builtin_offsetof(struct items_header, vcpus) == 20, "vcpus");
_Static_assert(__builtin_offsetof(struct items_header, count) == 24, "count");
_Static_assert(__builtin_offsetof(struct items_header, flags) == 28, "flags");
_Static_assert(__builtin_offsetof(struct items_header, en_flags) == 32, "en_flags");
_Static_assert(__builtin_offsetof(struct items_header, en_gpa) == 40, "en_gpa");
_Static_assert(__builtin_offsetof(struct items_header, vector) == 48, "vector");
_Static_assert(__builtin_offsetof(struct items_header, l2) == 52, "l2");
_Static_assert(__builtin_offsetof(struct items_header, apic_ids) == 56, "apic_ids");
_Static_assert(sizeof(struct items_header) == 64, "items_header");

struct item {
	u32 index;	/* 0 */
	u8 op;	/* 4 */
	u8 vcpu;	/* 5 */
	u8 write;	/* 6 */
	u8 cpl;	/* 7 */
	u32 flags;	/* 8 */
	u32 msr;	/* 12 */
	u64 gpa;	/* 16 */
	u64 value;	/* 24 */
	u32 pause_us;	/* 32 */
	u8 by;	/* 36 */
	u8 pad0[27];
};
_Static_assert(__builtin_offsetof(struct item, index) == 0, "index");
_Static_assert(__builtin_offsetof(struct item, op) == 4, "op");
_Static_assert(__builtin_offsetof(struct item, vcpu) == 5, "vcpu");
_Static_assert(__builtin_offsetof(struct item, write) == 6, "write");
_Static_assert(__builtin_offsetof(struct item, cpl) == 7, "cpl");
_Static_assert(__builtin_offsetof(struct item, flags) == 8, "flags");
_Static_assert(__builtin_offsetof(struct item, msr) == 12, "msr");
_Static_assert(__builtin_offsetof(struct item, gpa) == 16, "gpa");
_Static_assert(__builtin_offsetof(struct item, value) == 24, "value");
_Static_assert(__builtin_offsetof(struct item, pause_us) == 32, "pause_us");
_Static_assert(__builtin_offsetof(struct item, by) == 36, "by");
_Static_assert(sizeof(struct item) == 64, "item");

struct record {
	u64 tsc;	/* 0 */
	u16 kind;	/* 8 */
	u16 vcpu;	/* 10 */
	u32 item;	/* 12 */
	u64 a;	/* 16 */
	u64 b;	/* 24 */
};
_Static_assert(__builtin_offsetof(struct record, tsc) == 0, "tsc");
_Static_assert(__builtin_offsetof(struct record, kind) == 8, "kind");
_Static_assert(__builtin_offsetof(struct record, vcpu) == 10, "vcpu");
_Static_assert(__builtin_offsetof(struct record, item) == 12, "item");
_Static_assert(__builtin_offsetof(struct record, a) == 16, "a");
_Static_assert(__builtin_offsetof(struct record, b) == 24, "b");
_Static_assert(sizeof(struct record) == 32, "record");

#endif
#endif
