/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers shared by assembly and C: selectors, vectors, guest physical addresses (docs/formats.md section 2). */
#ifndef LAYOUT_H
#define LAYOUT_H

#define CONTROL_GPA	0x800000
#define SHARED_GPA	0x801000	/* + 4096 * vCPU */
#define PROGRAM_GPA	0x840000
#define PROGRAM_END	0xa00000
#define LOG_GPA		0xa00000	/* + LOG_BYTES * vCPU */
#define LOG_BYTES	0x40000
#define LOG_RECORDS	8192
#define POOL_GPA	0x1000000
#define TRAMPOLINE_GPA	0x8000		/* real mode, page aligned: the SIPI vector is its page number */

#define MAX_VCPUS	16
#define MAX_ITEMS	1024

/* Selectors.  Data segments have DPL 3: IRET to CPL 3 then leaves GS (the per-vCPU pointer) alone. */
#define SEL_CODE64	0x08
#define SEL_SS0		0x10
#define SEL_CODE32	0x18
#define SEL_USER_DATA	0x23
#define SEL_USER_CODE	0x2b
#define SEL_TSS		0x30

#define VEC_TIMER	0x40
#define VEC_START	0x41	/* IPI of vCPU 0: go */
#define VEC_ENDED	0x81	/* INT n at the end of an access */
#define VEC_SPURIOUS	0xff

/* Offsets in struct vcpu (checked in cpu.c). */
#define VCPU_SELF	0
#define VCPU_SCHED_RSP	8

#endif
