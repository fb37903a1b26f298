// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A plugin of QEMU's TCG: a vCPU thread gives its processor away when the guest executes PAUSE.
 *
 * A kernel that waits for another of its processors (an answer to an IPI, a lock) spins on PAUSE.  With more vCPU
 * threads than processors the one that is waited for often does not run, and the one that spins holds the processor it
 * could run on until its slice is over.  PLE would tell KVM of it; TCG has nothing like it.
 *
 * The declarations are those of version 7 of the plugin interface (QEMU 11.0 and later), whose header Debian does not
 * package.  A QEMU that does not speak this version refuses to load it, which is found out when it is built
 * (harness/artifacts/images/qemu_plugin.py).
 */
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(struct qemu_plugin_tb *, void *), void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*executed)(unsigned int, void *),
					    int registers, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t most);

#define EXPORTED __attribute__((visibility("default")))
#define NO_REGISTERS 0

EXPORTED int qemu_plugin_version = 7;
EXPORTED int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

static void pause_executed(unsigned int vcpu, void *unused)
{
	(void)vcpu;
	(void)unused;
	sched_yield();
}

static void translated(struct qemu_plugin_tb *block, void *unused)
{
	(void)unused;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
		uint8_t code[3];

		if (qemu_plugin_insn_data(insn, code, sizeof(code)) == 2 && code[0] == 0xf3 && code[1] == 0x90)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, pause_executed, NO_REGISTERS, NULL);
	}
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
