/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the probe guest offer each other. */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "probe.h"

/* entry.S */
enum { STOP_ENDED, STOP_TOKEN };
int context_run(struct frame *frame);
_Noreturn void context_leave(int reason);
int wrmsr_safe(u32 msr, u64 value);
int rdmsr_safe(u32 msr, u64 *value);
u64 touch_safe(u64 gva);
extern const char access_read[], access_write[], access_shadow_read[], access_shadow_write[];
extern const char access_interrupted[], access_nmi[], access_fault[];
extern const char access_gif_read[], access_gif_write[];
extern const char trap_stubs[], trap32_stubs[], trampoline[], trampoline_end[];
extern const u64 boot_gdt[];
extern u32 boot_stack_pointer, boot_argument, boot_function;

/* mode32.S and trap32.c: one stay in 32-bit protected mode with paging off */
enum { JOB_NOTHING, JOB_PAUSE, JOB_READ, JOB_WRITE };
struct job {
	u64 gpa;
	u64 value;	/* to write; or what was read */
	u64 until;	/* JOB_PAUSE: TSC */
	u32 kind;
	u32 flags;	/* of the item */
	u32 cr0;	/* the bits that change on the way there and on the way back */
};
void mode32_run(struct job *job);

/* l2.S and l2.c: an L2 of this vCPU */
void l2_enter(u64 vmcb, struct frame *frame, int interrupts);
extern const char l2_read[], l2_write[], l2_fault_call[];
_Noreturn void l2_fault_exit(void);
void l2_build_tables(int moved);
void l2_setup(struct vcpu *v);
void l2_run(struct vcpu *v, u32 position);
_Noreturn void l2_fault(struct vcpu *v, const struct frame *f, u64 cr2);

/* sched.c */
void finish(struct vcpu *v, const struct item *i, u64 value);

/* main.c */
_Noreturn void bsp_main(u32 start_info);
_Noreturn void ap_main(u32 id);
void trap(struct frame *f);

/* cpu.c */
void build_idt(void);
void load_idt(u64 gpa);
void event_stack(struct vcpu *v, int by, u64 end);
void interrupt_stack(struct vcpu *v, u64 end);
void vcpu_init(struct vcpu *v, u32 id);
void vcpu_start(u32 id);
void apic_base(const struct vcpu *v, int on);
void apic_enable(struct vcpu *v, int on);
void apic_timer(struct vcpu *v, u32 period_us);
void send_ipi(const struct vcpu *v, u32 apic_id, u32 icr);

/* clock.c */
u64 find_tsc_khz(const struct vcpu *v);
u64 deadline_us(u64 us);
void pause_until(u64 tsc);

/* memory.c */
const char *load_program(u32 start_info);
void touch_own_memory(void);
void apf_area(struct vcpu *v, u64 en_value);

/* sched.c */
void lower_priority(struct vcpu *v);
void run_program(struct vcpu *v);

/* ops.c */
int write_msr(struct vcpu *v, u32 item, u32 msr, u64 value);
void apf_setup(struct vcpu *v);
void perform(struct vcpu *v, const struct item *i);
int host_turn(struct vcpu *v);
void host_wait(struct vcpu *v);

/* serial.c */
void print(const char *text);
void print_hex(u64 value);
void set_state(u32 state);

#endif
