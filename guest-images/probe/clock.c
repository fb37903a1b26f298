// SPDX-License-Identifier: GPL-2.0-or-later
/* How fast the TSC runs, and waiting by it. */
#include "machine.h"
#include "functions.h"

/* Linux include/asm/pvclock-abi.h: struct pvclock_vcpu_time_info */
struct pvclock {
	u32 version, pad;
	u64 tsc, system;
	u32 mul;
	signed char shift;
	u8 flags, pad2[2];
};

static struct pvclock pvclock __attribute__((aligned(64)));

static u64 khz_by_kvmclock(void)
{
	u64 khz;

	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (u64)&pvclock | 1);
	asm volatile("" : : : "memory");
	/* Linux arch/x86/kernel/pvclock.c: pvclock_tsc_khz() */
	khz = pvclock.mul ? (1000000ull << 32) / pvclock.mul : 0;
	khz = pvclock.shift < 0 ? khz << -pvclock.shift : khz >> pvclock.shift;
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
	return khz;
}

/* Against the APIC timer: KVM (APIC_BUS_CYCLE_NS) and QEMU (hw/intc/apic.c) both count it in nanoseconds. */
static u64 khz_by_apic(const struct vcpu *v)
{
	const u32 ns = 20000000;
	u64 begin;
	u32 left;

	apic_write(v, APIC_LVT_TIMER, 1 << 16 | VEC_TIMER);
	apic_write(v, APIC_TIMER_DIVIDE, 0xb);
	apic_write(v, APIC_TIMER_INITIAL, 0xffffffff);
	begin = rdtsc();
	do
		left = apic_read(v, APIC_TIMER_CURRENT);
	while (left && 0xffffffff - left < ns);
	begin = rdtsc() - begin;
	apic_write(v, APIC_TIMER_INITIAL, 0);
	return left ? begin * 1000000 / (0xffffffff - left) : 0;
}

/* The TSC's frequency in kHz: as CPUID says, or kvmclock, or measured; 0 if nothing knows. */
u64 find_tsc_khz(const struct vcpu *v)
{
	struct cpuid_result r;

	if (cpuid(1).c & 1u << 31) {
		u32 max = cpuid(0x40000000).a;

		if (max >= 0x40000010 && max < 0x40010000 && cpuid(0x40000010).a)
			return cpuid(0x40000010).a;
		r = cpuid(0x40000000);
		if (r.b == 0x4b4d564b && r.c == 0x564b4d56 && r.d == 0x4d && (cpuid(0x40000001).a & 1 << 3)) {
			u64 khz = khz_by_kvmclock();

			if (khz)
				return khz;
		}
	}
	if (cpuid(0).a >= 0x15) {
		r = cpuid(0x15);
		if (r.a && r.b && r.c)
			return (u64)r.c * r.b / r.a / 1000;
	}
	return khz_by_apic(v);
}

u64 deadline_us(u64 us)
{
	return rdtsc() + us * control->tsc_khz / 1000;
}

void pause_until(u64 tsc)
{
	while ((long)(rdtsc() - tsc) < 0)
		;
}
