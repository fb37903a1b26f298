/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Into an L2 and out of it (AMD64 Architecture Programmer's Manual vol. 2, VMRUN), and what an L2 runs. */
#include "numbers.h"

	.text
	.code64
/*
 * void l2_enter(u64 vmcb, struct frame *frame, int interrupts): VMRUN with the frame's general registers, which are
 * L2's again at its exit, and RFLAGS.IF as said.  Returns with GIF = 0 and IF = 0.  VMRUN and #VMEXIT keep RSP and RAX
 * by themselves, and no other general register: the frame's r15 to rbx, in its order.
 */
	.macro	each_register what
	\what	%r15, 0
	\what	%r14, 8
	\what	%r13, 16
	\what	%r12, 24
	\what	%r11, 32
	\what	%r10, 40
	\what	%r9, 48
	\what	%r8, 56
	\what	%rbp, 64
	\what	%rdi, FRAME_RDI
	\what	%rdx, 88
	\what	%rcx, 96
	\what	%rbx, FRAME_RBX
	.endm
	.macro	load_register register, offset
	mov	\offset(%rsi), \register
	.endm
	.macro	save_register register, offset
	mov	\register, \offset(%rsi)
	.endm

	.global l2_enter
l2_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rsi
	mov	%rdi, %rax
	clgi
	test	%edx, %edx
	jz	1f
	sti
1:	each_register load_register
	mov	FRAME_RSI(%rsi), %rsi
	vmrun	%rax
	cli
	push	%rsi
	mov	8(%rsp), %rsi
	each_register save_register
	pop	FRAME_RSI(%rsi)
	pop	%rsi
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* The accesses: RDI = address, RSI = value to write; the value read comes back in RAX. */
	.global l2_read, l2_write
l2_read:
	mov	(%rdi), %rax
	vmmcall
l2_write:
	mov	%rsi, (%rdi)
	vmmcall

/* How the handler of an exception in L2 leaves it for good. */
	.global l2_fault_exit, l2_fault_call
l2_fault_exit:
l2_fault_call:
	vmmcall
	ud2
	.section .note.GNU-stack, "", @progbits
