/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the PVH entry (32-bit protected mode, paging off, EBX = hvm_start_info: Xen docs/misc/pvh.pandoc) and from the
 * real-mode start of the other vCPUs to 64-bit C.
 */
#include "numbers.h"

	.section .note.pvh, "a", @note
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_entry

	.text
	.code32
	.global pvh_entry
pvh_entry:
	cli
	cld
	mov	$bss_start, %edi	/* a reset of the machine leaves the old contents */
	mov	$bss_end, %ecx
	sub	%edi, %ecx
	shr	$2, %ecx
	xor	%eax, %eax
	rep stosl
	mov	%ebx, boot_argument
	movl	$boot_stack_end, boot_stack_pointer
	movl	$bsp_main, boot_function

/* Common to all vCPUs: paging is off, boot_stack_pointer and boot_function are set. */
enter_long_mode:
	lgdt	boot_gdt_pointer
	mov	%cr4, %eax
	or	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	$0x80000033, %eax	/* PG, NE, ET, MP, PE; caches on */
	mov	%eax, %cr0
	ljmp	$SEL_CODE64, $1f
	.code64
1:	mov	$SEL_SS0, %eax
	mov	%eax, %ss
	mov	boot_stack_pointer, %esp
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	boot_argument, %edi
	mov	boot_function, %eax
	call	*%rax
	ud2

/* Copied to TRAMPOLINE_GPA; CS = TRAMPOLINE_GPA / 16, IP = 0. */
	.code16
	.global trampoline, trampoline_end
trampoline:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	trampoline_gdt_pointer - trampoline
	mov	$0x11, %eax
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $1f
trampoline_gdt_pointer:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
trampoline_end:
	.code32
1:	mov	$SEL_USER_DATA & ~3, %eax	/* a flat data segment for CPL 0: RPL 0 */
	mov	$SEL_SS0, %ecx
	mov	%ecx, %ss
	mov	%eax, %ds
	mov	%eax, %es
	jmp	enter_long_mode

	.data
	.balign 8
	.global boot_gdt
boot_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* SEL_CODE64 */
	.quad	0x00cf93000000ffff	/* SEL_SS0 */
	.quad	0x00cf9b000000ffff	/* SEL_CODE32 */
	.quad	0x00cff3000000ffff	/* SEL_USER_DATA */
	.quad	0x00affb000000ffff	/* SEL_USER_CODE */
boot_gdt_end:
boot_gdt_pointer:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
	.long	0
	.balign 4
	.global boot_stack_pointer, boot_argument, boot_function
boot_stack_pointer:
	.long	0
boot_argument:
	.long	0
boot_function:
	.long	0

	.bss
	.balign 16
	.skip	16384
boot_stack_end:

/* Identity map of 4 GiB by 2 MiB user pages, accessed and dirty from the start; uncached above 3 GiB (devices). */
	.section .tables, "aw"
	.balign 4096
pml4:
	.quad	pdpt + 0x27
	.fill	511, 8, 0
pdpt:
	.quad	page_directories + 0x0027
	.quad	page_directories + 0x1027
	.quad	page_directories + 0x2027
	.quad	page_directories + 0x3027
	.fill	508, 8, 0
page_directories:
	.set	n, 0
	.rept	1536
	.quad	(n << 21) + 0xe7
	.set	n, n + 1
	.endr
	.rept	512
	.quad	(n << 21) + 0xff
	.set	n, n + 1
	.endr
	.section .note.GNU-stack, "", @progbits
