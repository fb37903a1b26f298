// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * This vCPU as a hypervisor (L1) of AMD's kind: an L2 that makes one access and says VMMCALL.  An item's frame is that
 * of the access before it is made; the VMCB and ``running`` are filled from it for the first VMRUN, and again when the
 * item was put aside, or its L2 got an exception.
 */
#include "ready.h"
#include "functions.h"

/* AMD64 Architecture Programmer's Manual vol. 2, appendix B; Linux arch/x86/include/asm/svm.h. */
struct segment {
	u16 selector, attributes;
	u32 limit;
	u64 base;
};

struct vmcb {
	u32 intercept_cr, intercept_dr, intercept_exceptions, intercepts, intercepts_svm;	/* 0x000 */
	u8 pad0[0x58 - 0x14];
	u32 asid, tlb_control;									/* 0x058 */
	u32 int_ctl, int_vector;								/* 0x060 */
	u64 int_state;										/* 0x068 */
	u64 exit_code, exit_info1, exit_info2, exit_int_info;					/* 0x070 */
	u64 nested_ctl;										/* 0x090 */
	u8 pad1[0xa8 - 0x98];
	u64 event_inj, nested_cr3;								/* 0x0a8 */
	u8 pad2[0x400 - 0xb8];
	struct segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;				/* 0x400 */
	u8 pad3[0x4cb - 0x4a0];
	u8 cpl;											/* 0x4cb */
	u32 pad4;
	u64 efer;										/* 0x4d0 */
	u8 pad5[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;						/* 0x548 */
	u8 pad6[0x5d8 - 0x580];
	u64 rsp;										/* 0x5d8 */
	u8 pad7[0x5f8 - 0x5e0];
	u64 rax;										/* 0x5f8 */
	u8 pad8[0x640 - 0x600];
	u64 cr2;										/* 0x640 */
	u8 pad9[0x668 - 0x648];
	u64 g_pat;										/* 0x668 */
	u8 pad10[0x1000 - 0x670];
};

_Static_assert(__builtin_offsetof(struct vmcb, int_ctl) == 0x60, "int_ctl");
_Static_assert(__builtin_offsetof(struct vmcb, exit_code) == 0x70, "exit_code");
_Static_assert(__builtin_offsetof(struct vmcb, event_inj) == 0xa8, "event_inj");
_Static_assert(__builtin_offsetof(struct vmcb, cpl) == 0x4cb, "cpl");
_Static_assert(__builtin_offsetof(struct vmcb, efer) == 0x4d0, "efer");
_Static_assert(__builtin_offsetof(struct vmcb, rip) == 0x578, "rip");
_Static_assert(__builtin_offsetof(struct vmcb, rax) == 0x5f8, "rax");
_Static_assert(__builtin_offsetof(struct vmcb, g_pat) == 0x668, "g_pat");
_Static_assert(sizeof(struct vmcb) == 4096, "a page");
_Static_assert(__builtin_offsetof(struct frame, rdi) == FRAME_RDI, "numbers.h");
_Static_assert(__builtin_offsetof(struct frame, rsi) == FRAME_RSI, "numbers.h");
_Static_assert(__builtin_offsetof(struct frame, rbx) == FRAME_RBX, "numbers.h");

#define MSR_VM_HSAVE_PA		0xc0010117
#define PAT_DEFAULT		0x0007040600070406ull

enum { INTERCEPT_INTR = 1u << 0, INTERCEPT_VINTR = 1u << 4, INTERCEPT_SHUTDOWN = 1u << 31 };
enum { INTERCEPT_VMRUN = 1u << 0, INTERCEPT_VMMCALL = 1u << 1 };
enum { V_IRQ = 1u << 8, V_PRIO = 0xfu << 16, V_INTR_MASKING = 1u << 24 };
enum { CODE64_CPL0 = 0xa9b, CODE64_CPL3 = 0xafb, DATA_CPL0 = 0xc93, DATA_CPL3 = 0xcf3 };
#define EVENT_VALID	(1u << 31)	/* of type 0, an external interrupt */
#define NESTED_TABLES	6

static struct vmcb vmcbs[MAX_VCPUS] __attribute__((aligned(4096)));
static struct l2_fault {
	u64 vector, error, rip, cr2, rflags;
	u32 flags;	/* the word of L1's shared area */
} faults[MAX_VCPUS];	/* what each L2's handler was given */
static struct frame running[MAX_VCPUS];	/* general registers of the L2, between its exit and the next VMRUN */
static u8 save_areas[MAX_VCPUS][4096] __attribute__((aligned(4096)));
static u8 stacks[MAX_VCPUS][4096] __attribute__((aligned(16)));	/* of handlers in L2 */
/*
 * The identity map of boot.S once more.  Not the same tables: those of CR3 are written by the processor that walks
 * them, and a host that protects nested tables would have to emulate each access.  From MOVED_GPA on the first GiB is
 * mapped a second time: where an L2 touches it there, no address of a page is the same for L1 and L2.  The pool is not
 * mapped where it was then: a host shadows both by one table, so that whoever went by the wrong address would fill it.
 */
static u64 nested_tables[NESTED_TABLES][512] __attribute__((aligned(4096)));

/* Once, before any vCPU runs an L2. */
void l2_build_tables(int moved)
{
	for (u64 n = 0; n < 2048; n++)
		if (!moved || n < POOL_GPA >> 21 || n >= 512)
			nested_tables[2 + n / 512][n % 512] = n << 21 | (n < 1536 ? 0xe7 : 0xff);
	for (u64 n = 0; n < 512; n++)	/* no guest has memory there */
		nested_tables[2 + MOVED_GPA / (1ull << 30)][n] = n << 21 | 0xe7;
	for (u64 n = 0; n < 4; n++)
		nested_tables[1][n] = (u64)nested_tables[2 + n] | 0x27;
	nested_tables[0][0] = (u64)nested_tables[1] | 0x27;
}

static struct segment segment(u16 selector, u16 attributes)
{
	struct segment s = { selector, attributes, 0xffffffff, 0 };

	return s;
}

static void table_register(struct segment *to, const void *from)
{
	const struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) *pointer = from;

	to->limit = pointer->limit;
	to->base = pointer->base;
}

/* Make this vCPU a hypervisor. */
void l2_setup(struct vcpu *v)
{
	struct vmcb *b = &vmcbs[v->id];
	u8 pointer[10];

	if (wrmsr_safe(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME) ||
	    wrmsr_safe(MSR_VM_HSAVE_PA, (u64)save_areas[v->id]))
		panic("an L2 needs a processor with SVM");
	b->intercept_exceptions = header->l2 & L2_INTERCEPT_PF ? 1u << 14 : 0;
	b->intercepts = INTERCEPT_SHUTDOWN | (header->l2 & L2_INTERCEPT_INTR ? INTERCEPT_INTR : 0) |
			(header->l2 & L2_INTERCEPT_VINTR ? INTERCEPT_VINTR : 0);
	b->intercepts_svm = INTERCEPT_VMRUN | INTERCEPT_VMMCALL;
	b->asid = 1;
	b->nested_ctl = (header->l2 & L2_NPT) != 0;
	b->nested_cr3 = (u64)nested_tables[0];
	b->ds = b->es = segment(SEL_USER_DATA, DATA_CPL3);
	asm volatile("sgdt %0" : "=m"(pointer));
	table_register(&b->gdtr, pointer);
	asm volatile("sidt %0" : "=m"(pointer));
	table_register(&b->idtr, pointer);
	b->efer = rdmsr(MSR_EFER);
	b->cr4 = read_cr4();
	b->cr3 = read_cr3();
	b->cr0 = read_cr0();
	b->dr7 = 0x400;
	b->dr6 = 0xffff0ff0;
	b->g_pat = PAT_DEFAULT;
}

static void load(struct vcpu *v, struct vmcb *b, const struct item *i, const struct frame *f)
{
	running[v->id] = *f;
	b->cs = i->cpl ? segment(SEL_USER_CODE, CODE64_CPL3) : segment(SEL_CODE64, CODE64_CPL0);
	b->ss = i->cpl ? segment(SEL_USER_DATA, DATA_CPL3) : segment(SEL_SS0, DATA_CPL0);
	b->cpl = i->cpl;
	b->rip = f->rip;
	b->rsp = f->rsp;
	b->rflags = f->rflags;
	b->rax = f->rax;
	b->int_state = 0;
	b->cr2 = 0;
}

/* L2's handler: L1 writes it down, which may have L2 back for an interrupt in the midst of whatever L2 writes. */
_Noreturn void l2_fault(struct vcpu *v, const struct frame *f, u64 cr2)
{
	u64 moved = (header->l2 & L2_MOVED) && v->apf_gpa >= POOL_GPA ? MOVED_GPA : 0;	/* where it has the pool */

	faults[v->id] = (struct l2_fault){
		f->vector, f->error, f->rip, cr2, f->rflags, AT(struct apf_data, v->apf_gpa + moved)->flags,
	};
	l2_fault_exit();
}

/*
 * L2 says what its handler was given: only a #PF that the host gave to L2 although it is L1's has the flags word set.
 * Vector 0 is the host's, too: with it KVM asks for a window in which L1 could be given an interrupt (svm_set_vintr);
 * nothing divides here.
 */
static void log_l2_fault(struct vcpu *v, u32 item)
{
	const struct l2_fault *seen = &faults[v->id];

	if (seen->vector != 0 && (seen->vector != 14 || !(seen->flags & 1)))
		fault(v, seen->vector, seen->error, seen->rip, seen->cr2, seen->rflags);
	log_record(v, LOG_L2_FAULT, item, seen->vector | seen->error << 32, seen->cr2);
}

static int is_l2_fault(const struct vmcb *b)
{
	return (u32)b->exit_code == SVM_EXIT_VMMCALL && b->rip == (u64)l2_fault_call;
}

/* One VMRUN and what L1 finds at its exit; GIF is 1 again, IF 0. */
static void run_once(struct vcpu *v, struct vmcb *b)
{
	struct apf_data *data = AT(struct apf_data, v->apf_gpa);
	u32 flags, token, item = item_index(v->current);

	interrupt_stack(v, (u64)stacks[v->id] + sizeof(stacks[0]));
	v->in_l2 = 1;
	l2_enter((u64)b, &running[v->id], (header->l2 & L2_L1_INTERRUPTS) != 0);
	v->in_l2 = 0;
	interrupt_stack(v, 0);
	flags = data->flags;
	token = data->token;
	asm volatile("stgi" : : : "memory");
	log_late(v);
	if (is_l2_fault(b))
		log_l2_fault(v, item);
	log_record(v, LOG_L2_EXIT, item, (u32)b->exit_code | b->exit_info1 << 32, b->exit_info2);
	log_record(v, LOG_L2_WORDS, item, flags, token | b->event_inj << 32);
	b->event_inj = 0;	/* as it is, unless the host has left there what L2 was given */
	b->int_ctl &= ~V_IRQ;
}

/* Run the item's access in L2 until it ends or gets a token. */
void l2_run(struct vcpu *v, u32 position)
{
	const struct item *i = &items[position];
	struct frame *f = &contexts[position].frame;
	struct vmcb *b = &vmcbs[v->id];

	v->current = position;
	load(v, b, i, f);
	b->event_inj = header->l2 & L2_INJECT ? EVENT_VALID | VEC_INJECTED : 0;
	b->int_ctl = (header->l2 & L2_INTR_MASKING ? V_INTR_MASKING : 0) |
		     (header->l2 & L2_VIRQ ? V_IRQ | V_PRIO : 0);
	b->int_vector = VEC_INJECTED;
	for (;;) {
		run_once(v, b);
		switch ((u32)b->exit_code) {
		case SVM_EXIT_INTR:
		case SVM_EXIT_VINTR:
			sti();	/* the next VMRUN goes on where L2 was */
			cli();
			break;
		case SVM_EXIT_EXCP_PF:
			if (!take_token(v, b->exit_info2))
				fault(v, 14, b->exit_info1, b->rip, b->exit_info2, b->rflags);
			v->current = NONE;
			return;
		case SVM_EXIT_VMMCALL:
			if (is_l2_fault(b)) {
				if (faults[v->id].vector == 0) {
					sti();	/* else it would be back at once */
					cli();
				}
				load(v, b, i, f);	/* the access again */
				break;
			}
			v->current = NONE;
			f->rax = b->rax;
			finish(v, i, i->write ? f->rsi : f->rax);
			return;
		default:
			fault(v, b->exit_code, b->exit_info1, b->rip, b->exit_info2, b->rflags);
		}
	}
}
