/* SPDX-License-Identifier: GPL-2.0-or-later */
/* To 32-bit protected mode with CR0.PG=0 and back, and the traps taken there (no stack switch, CPL stays 0). */
#include "numbers.h"

	.text
	.code64
/* void mode32_run(struct job *job): calls job32(job) with paging off, IF=0 on entry and on return. */
	.global mode32_run
mode32_run:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	$SEL_SS0, %eax		/* a trap from CPL 3 left SS null, which only 64-bit code may have */
	mov	%eax, %ss
	lidt	idt32_pointer
	pushq	$SEL_CODE32
	pushq	$1f
	lretq
	.code32
1:	mov	%cr0, %eax
	xor	JOB_CR0(%edi), %eax
	mov	%eax, %cr0
	mov	%esp, %ebp		/* EBP and EDI survive the C function */
	and	$~15, %esp
	sub	$12, %esp
	push	%edi
	call	job32
	mov	%ebp, %esp
	mov	%cr0, %eax
	xor	JOB_CR0(%edi), %eax
	mov	%eax, %cr0
	ljmp	$SEL_CODE64, $1f
	.code64
1:	lidt	idt64_pointer
	mov	%esp, %esp		/* the upper half is undefined after 32-bit code */
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.code32
	.global trap32_stubs
	.balign 16
trap32_stubs:
	.set	n, 0
	.rept	256
	.balign 16
	.if !((n == 8) || (n >= 10 && n <= 14) || (n == 17) || (n == 21) || (n == 29) || (n == 30))
	pushl	$0
	.endif
	pushl	$n
	jmp	trap32_common
	.set	n, n + 1
	.endr
trap32_common:
	pushal
	cld
	mov	%esp, %ebp
	and	$~15, %esp
	sub	$12, %esp
	push	%ebp
	call	trap32
	mov	%ebp, %esp
	popal
	add	$8, %esp
	iretl

	.data
	.balign 8
	.global idt64_pointer, idt32_pointer
idt64_pointer:
	.word	256 * 16 - 1
	.quad	idt64
	.balign 8
idt32_pointer:
	.word	256 * 8 - 1
	.quad	idt32
	.section .note.GNU-stack, "", @progbits
