/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers that only the guest's own assembly and C share; those that the harness knows too are in layout.h. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include "layout.h"

#define CPU_HOTPLUG_PORT	0xcd8		/* ICH9_CPU_HOTPLUG_IO_BASE */
#define TRAMPOLINE_GPA	0x8000		/* real mode, page aligned: the SIPI vector is its page number */

/* Selectors.  Data segments have DPL 3: IRET to CPL 3 then leaves GS (the per-vCPU pointer) alone. */
#define SEL_CODE64	0x08
#define SEL_SS0		0x10
#define SEL_CODE32	0x18
#define SEL_USER_DATA	0x23
#define SEL_USER_CODE	0x2b
#define SEL_TSS		0x30

#define VEC_NMI		2
#define VEC_PF		14
#define VEC_SPURIOUS	0xff

/* Offsets in struct vcpu (checked in cpu.c). */
#define VCPU_SELF	0
#define VCPU_SCHED_RSP	8

/* Offset in struct job (checked in ops.c). */
#define JOB_CR0		32

/* Offsets in struct frame (checked in l2.c). */
#define FRAME_RDI	72
#define FRAME_RSI	80
#define FRAME_RBX	104

#endif
