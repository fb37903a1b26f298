/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 64-bit traps and contexts.  Every vector uses IST 1, handlers run with IF=0 and an access needs no stack: so the
 * whole of a context is the frame pushed here, which C can keep and run again later.
 */
#include "numbers.h"

	.text
	.code64

/* One stub of 16 bytes for each vector; the agent knows where they lie (link.ld). */
	.section .stubs, "ax"
	.global trap_stubs
	.balign 16
trap_stubs:
	.set	n, 0
	.rept	256
	.balign 16
	.if !((n == 8) || (n >= 10 && n <= 14) || (n == 17) || (n == 21) || (n == 29) || (n == 30))
	push	$0
	.endif
	pushq	$n
	jmp	trap_common
	.set	n, n + 1
	.endr

	.text
trap_common:
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	call	trap
load_frame:
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$16, %rsp
	iretq

/* int context_run(struct frame *): runs it until a trap handler calls context_leave(reason); returns the reason. */
	.global context_run, context_leave
context_run:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %gs:VCPU_SCHED_RSP
	mov	%rdi, %rsp
	jmp	load_frame
context_leave:
	mov	%gs:VCPU_SCHED_RSP, %rsp
	mov	%edi, %eax
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* The accesses: RDI = address, RSI = value to write; the value read comes back in RAX. */
	.global access_read, access_write, access_shadow_read, access_shadow_write
access_read:
	mov	(%rdi), %rax
	int	$VEC_ENDED
access_write:
	mov	%rsi, (%rdi)
	int	$VEC_ENDED
/* ... that the delivery of an event makes: of an interrupt that is pending, of a #PF (RDI = UNMAPPED_GVA). */
	.global access_interrupted, access_nmi, access_fault
access_interrupted:
	pause
	jmp	access_interrupted
/* ... of an NMI: EAX is written to the local APIC's ICR, which is ECX, or of an xAPIC [RDI]. */
access_nmi:
	test	%rdi, %rdi
	jnz	1f
	wrmsr
	jmp	access_interrupted
1:	mov	%eax, (%rdi)
	jmp	access_interrupted
access_fault:
	mov	(%rdi), %rax
	ud2
access_shadow_read:
	sti
	mov	(%rdi), %rax
	int	$VEC_ENDED
access_shadow_write:
	sti
	mov	%rsi, (%rdi)
	int	$VEC_ENDED
/* With GIF = 0 and IF = 1, behind the shadow of STI. */
	.global access_gif_read, access_gif_write
access_gif_read:
	clgi
	sti
	nop
	mov	(%rdi), %rax
	cli
	stgi
	int	$VEC_ENDED
access_gif_write:
	clgi
	sti
	nop
	mov	%rsi, (%rdi)
	cli
	stgi
	int	$VEC_ENDED

/* int wrmsr_safe(u32 msr, u64 value), int rdmsr_safe(u32 msr, u64 *value): 0, or 13 for #GP. */
	.global wrmsr_safe, rdmsr_safe, wrmsr_at, rdmsr_at, msr_fixup
wrmsr_safe:
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
wrmsr_at:
	wrmsr
	xor	%eax, %eax
	ret
rdmsr_safe:
	mov	%edi, %ecx
rdmsr_at:
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	mov	%rax, (%rsi)
	xor	%eax, %eax
	ret
msr_fixup:
	mov	$13, %eax
	ret

/* u64 touch_safe(u64 gva): reads there; a #PF, which the handler logs, gives 0. */
	.global touch_safe, touch_at, touch_fixup
touch_safe:
	xor	%eax, %eax
touch_at:
	mov	(%rdi), %rax
touch_fixup:
	ret
	.section .note.GNU-stack, "", @progbits
