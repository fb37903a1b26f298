/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions, the local APIC and the log, for 64-bit and 32-bit code alike. */
#ifndef MACHINE_H
#define MACHINE_H

#include "probe.h"

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

struct cpuid_result {
	u32 a, b, c, d;
};

static inline struct cpuid_result cpuid(u32 leaf)
{
	struct cpuid_result r;

	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
	return r;
}

static inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}

#define READ_REGISTER(name)							\
static inline u64 read_##name(void)						\
{										\
	__UINTPTR_TYPE__ value;							\
										\
	asm volatile("mov %%" #name ", %0" : "=r"(value));			\
	return value;								\
}
READ_REGISTER(cr0)
READ_REGISTER(cr3)
READ_REGISTER(cr4)

static inline u64 read_cr2(void)
{
	__UINTPTR_TYPE__ value;

	asm volatile("mov %%cr2, %0" : "=r"(value));
	return value;
}

static inline struct vcpu *this_vcpu(void)
{
	u32 self;

	asm volatile("movl %%gs:%c1, %0" : "=r"(self) : "i"(VCPU_SELF));
	return AT(struct vcpu, self);
}

static inline void cli(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void sti(void)
{
	asm volatile("sti\n\tnop" : : : "memory");
}

/* The LAPIC's task priority, in CR8. */
static inline void set_priority(u64 class)
{
	asm volatile("mov %0, %%cr8" : : "r"(class) : "memory");
}

/* Nothing can come between the STI and the HLT. */
static inline void sti_hlt_cli(void)
{
	asm volatile("sti\n\thlt\n\tcli" : : : "memory");
}

static inline _Noreturn void halt(void)
{
	for (;;)
		asm volatile("cli\n\thlt" : : : "memory");
}

/* Registers of the local APIC by their xAPIC offset; x2APIC: MSR 0x800 + offset / 16 (Intel SDM vol. 3, APIC). */
enum {
	APIC_ID = 0x20, APIC_TPR = 0x80, APIC_EOI = 0xb0, APIC_SVR = 0xf0, APIC_ICR = 0x300, APIC_ICR2 = 0x310,
	APIC_LVT_TIMER = 0x320, APIC_LVT_LINT1 = 0x360, APIC_TIMER_INITIAL = 0x380, APIC_TIMER_CURRENT = 0x390, APIC_TIMER_DIVIDE = 0x3e0
};
#define XAPIC_BASE 0xfee00000

static inline u32 apic_read(const struct vcpu *v, u32 reg)
{
	return v->x2apic ? (u32)rdmsr(0x800 + reg / 16) : *AT(volatile u32, XAPIC_BASE + reg);
}

static inline void apic_write(const struct vcpu *v, u32 reg, u32 value)
{
	if (v->x2apic)
		wrmsr(0x800 + reg / 16, value);
	else
		*AT(volatile u32, XAPIC_BASE + reg) = value;
}

_Noreturn void panic(const char *why);

static inline void log_put(struct vcpu *v, u16 kind, u32 item, u64 a, u64 b)
{
	u32 n = control->log_count[v->id];
	struct record *r = AT(struct record, LOG_GPA + v->id * LOG_BYTES) + n;

	if (n == LOG_RECORDS)
		panic("log full");
	r->tsc = rdtsc();
	r->kind = kind;
	r->vcpu = v->id;
	r->item = item;
	r->a = a;
	r->b = b;
	asm volatile("" : : : "memory");	/* stores are not reordered on x86: the record is there before its count */
	control->log_count[v->id] = n + 1;
}

/* What could not be written when it came. */
static inline void log_late(struct vcpu *v)
{
	while (v->logged_nmis != v->late_nmis) {
		v->logging = 1;
		log_put(v, LOG_NMI, NONE, 0, v->late_rip[v->logged_nmis % LATE_NMIS]);
		v->logged_nmis++;
		v->logging = 0;
	}
}

/* Interrupts are off here.  An NMI is not, and must not write where this does; nor may L2, in whose midst L1 may be. */
static inline void log_record(struct vcpu *v, u16 kind, u32 item, u64 a, u64 b)
{
	v->logging = 1;
	log_put(v, kind, item, a, b);
	v->logging = 0;
	log_late(v);
}

static inline void log_nmi(struct vcpu *v, u64 rip)
{
	if (v->logging || v->in_l2) {
		v->late_rip[v->late_nmis % LATE_NMIS] = rip;
		v->late_nmis++;
	} else {
		log_record(v, LOG_NMI, NONE, 0, rip);
	}
}

#endif
