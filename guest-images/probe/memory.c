// SPDX-License-Identifier: GPL-2.0-or-later
/* The items file and the guest's own memory (docs/formats/probe.md sections 1 and 3). */
#include "machine.h"
#include "functions.h"

struct start_info {	/* Xen xen/include/public/arch-x86/hvm/start_info.h: struct hvm_start_info, version 1 */
	u32 magic, version, flags, modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
#define START_MAGIC 0x336ec578

struct module {
	u64 gpa, size, cmdline, reserved;
};

struct memmap_entry {
	u64 gpa, size;
	u32 type, reserved;
};

extern char image_start[], image_end[];

static u64 ram_end;	/* of the RAM that begins at 1 MiB */

/* Copy the items file to PROGRAM_GPA.  Returns what is wrong with it, or 0. */
const char *load_program(u32 start_info)
{
	const struct start_info *info = AT(const struct start_info, start_info);
	const struct module *module = AT(const struct module, info->modlist);
	u32 words;

	if (info->magic != START_MAGIC || info->modules == 0)
		return "no items file (-initrd)";
	ram_end = POOL_GPA;
	for (u32 i = 0; info->version > 0 && i < info->memmap_entries; i++) {
		const struct memmap_entry *m = AT(const struct memmap_entry, info->memmap) + i;

		if (m->type == 1 && m->gpa <= 0x100000 && m->gpa + m->size > ram_end)
			ram_end = m->gpa + m->size;
	}
	if (module->size < sizeof(struct items_header) || module->size > PROGRAM_END - PROGRAM_GPA)
		return "items file: bad size";
	words = (module->size + 7) / 8;
	for (u32 i = 0; i < words; i++)
		AT(volatile u64, PROGRAM_GPA)[i] = AT(const u64, module->gpa)[i];
	if (header->magic != ITEMS_MAGIC || header->version != ITEMS_VERSION)
		return "items file: bad magic or version";
	if (header->vcpus == 0 || header->vcpus > MAX_VCPUS || header->count > MAX_ITEMS)
		return "items file: too many vCPUs or items";
	if (module->size < sizeof(struct items_header) + header->count * sizeof(struct item))
		return "items file: truncated";
	for (u32 i = 0; i < header->count; i++)
		if (items[i].op >= OP_COUNT || items[i].vcpu >= header->vcpus || (items[i].cpl != 0 && items[i].cpl != 3) ||
		    items[i].by >= BY_COUNT)
			return "items file: bad op, vCPU, CPL or by";
	for (u32 i = 0; i < header->count; i++)
		if (items[i].op == OP_AFTER && items[i].value >= i)
			return "items file: an item is after one that comes later";
	return 0;
}

static void touch(u64 from, u64 to)
{
	for (u64 gpa = from & ~4095ull; gpa < to; gpa += 4096)
		__atomic_fetch_or(AT(volatile u32, gpa), 0, __ATOMIC_SEQ_CST);
}

/* Write to every page that this guest uses, so that none of them is missing later. */
void touch_own_memory(void)
{
	touch((u64)image_start, (u64)image_end);
	touch(CONTROL_GPA, SHARED_GPA);
	touch(SHARED_GPA, SHARED_GPA + header->vcpus * 4096);
	touch(PROGRAM_GPA, PROGRAM_GPA + sizeof(struct items_header) + header->count * sizeof(struct item));
	touch(LOG_GPA, LOG_GPA + header->vcpus * LOG_BYTES);
	touch(TRAMPOLINE_GPA, TRAMPOLINE_GPA + 4096);
}

/* Where the handlers find the shared area once EN has this value: there if it is RAM, else in the vCPU's own. */
void apf_area(struct vcpu *v, u64 en_value)
{
	u64 gpa = en_value & ~63ull;

	v->apf_gpa = gpa && gpa < ram_end ? gpa : SHARED_GPA + 4096 * v->id;
}
