# SPDX-License-Identifier: GPL-2.0-or-later
"""A source tree with the targets of a kernel's, which builds in a blink: for tests of the builder.

Its "objects" are copies of its sources, its bzImage is a setup header and all objects, its configuration takes what a
fragment wants if Kconfig has the symbol, and everything names the folder that it was built in, as objtool does.
"""

from __future__ import annotations

from pathlib import Path

_MAKEFILE = r"""
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 192
ifneq ($(sub),1)
tinyconfig olddefconfig bzImage: %: FORCE
	@mkdir -p $(O)
	@$(MAKE) --no-print-directory -C $(O) -f $(CURDIR)/Makefile sub=1 src=$(CURDIR) $@
FORCE:
else
SOURCES := $(wildcard $(src)/mm/*.c $(src)/virt/*.c)
OBJECTS := $(SOURCES:$(src)/%.c=%.o)
tinyconfig:
	@: > .config
olddefconfig:
	@awk 'NR == FNR { if ($$1 == "config") known[$$2] = 1; next } \
		/^CONFIG_/ { split($$0, part, /[_=]/); name = $$0; sub(/^CONFIG_/, "", name); sub(/=.*/, "", name); \
		if (name in known) print }' $(src)/Kconfig .config > .config.new
	@mv .config.new .config
tool: $(src)/tool.c
	@echo "$(CURDIR)" > tool
define COMPILE
@mkdir -p $(dir $@)
	@echo "  CC      $@"
	@echo "made in $(CURDIR)" > $@.cmd
	@if grep -q BROKEN $<; then echo "$<:1:1: error: BROKEN is not C"; exit 1; fi
	@if grep -q SLOW $< && [ ! -e $(HOME)/fast ]; then touch $(HOME)/slow; \
	i=0; while [ $$i -lt 600 ]; do sleep 0.1; i=$$((i + 1)); done; fi
	@if grep -q CAREFUL $<; then echo "$<:1:1: warning: careful"; fi
	@cp $< $@.new && mv $@.new $@
endef
mm/%.o: $(src)/mm/%.c tool
	$(COMPILE)
virt/%.o: $(src)/virt/%.c tool
	$(COMPILE)
bzImage: $(OBJECTS)
	@mkdir -p arch/x86/boot
	@{ head -c 514 /dev/zero; printf HdrS; head -c 8 /dev/zero; printf '\060\000'; head -c 32 /dev/zero; \
	printf '$(VERSION).$(PATCHLEVEL).$(SUBLEVEL)$(LOCALVERSION) (apf@apf) #1\0'; cat $(OBJECTS); } \
	> arch/x86/boot/bzImage
	@touch System.map
endif
"""
_MERGE = """
shift; [ "$1" = -O ] && shift 2
target=$1; shift
cat "$@" | grep -E '^CONFIG_' >> "$target"
exit 0
"""
KCONFIG = "".join(f"config {name}\n\tbool\n" for name in ("KVM", "KVM_AMD", "DM_DELAY"))
FRAGMENT = "# all scenarios\nCONFIG_KVM=y\nCONFIG_KVM_AMD=y\n# slow swap\nCONFIG_DM_DELAY=y\n"


def make_tree(folder: Path) -> Path:
    """Write the tree."""
    files = {
        "Makefile": _MAKEFILE,
        "Kconfig": KCONFIG,
        "scripts/kconfig/merge_config.sh": _MERGE,
        "tool.c": "",
        "mm/memory.c": "memory 1\nmemory 2\nmemory 3\n",
        "mm/filemap.c": "filemap 1\n",
        "virt/async_pf.c": "async 1\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


PATCH = """--- a/mm/memory.c
+++ b/mm/memory.c
@@ -1,3 +1,3 @@
 memory 1
-memory 2
+memory two
 memory 3
"""
