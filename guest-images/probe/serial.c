// SPDX-License-Identifier: GPL-2.0-or-later
/* The serial console: only before READY and when all is lost (each byte exits to QEMU). */
#include "machine.h"
#include "functions.h"

#define COM1 0x3f8

void print(const char *text)
{
	for (; *text; text++) {
		for (u32 i = 0; i < 100000 && !(inb(COM1 + 5) & 0x20); i++)
			;
		outb(COM1, *text);
	}
}

void print_hex(u64 value)
{
	char text[17];

	for (int i = 0; i < 16; i++)
		text[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
	text[16] = 0;
	print(text);
}

/* PANIC is final, whatever other vCPUs do. */
void set_state(u32 state)
{
	u32 old = control->state;

	while (old != STATE_PANIC && !__atomic_compare_exchange_n(&control->state, &old, state, 0, __ATOMIC_SEQ_CST,
								  __ATOMIC_SEQ_CST))
		;
}

void panic(const char *why)
{
	print("apf-probe: PANIC: ");
	print(why);
	print("\n");
	set_state(STATE_PANIC);	/* last: whoever sees it may end QEMU at once */
	halt();
}
