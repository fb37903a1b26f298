# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's ABI: addresses, structures and numbers that the guest and the harness have in common.

Written once, here: guest-images/probe/layout.h is printed by ``python -m harness.contract.probe_abi`` (``make
layout``), and a test compares them.  docs/formats/probe.md says in prose what the fields mean.  All integers
are little-endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from harness.contract.words import By, Op

PAGE_SIZE = 4096
SECTORS_PER_PAGE = PAGE_SIZE // 512  # the block layer counts so, whatever the device (include/linux/blk_types.h)
MASK64 = (1 << 64) - 1

# Guest physical addresses in bytes.
CONTROL_GPA = 0x800000
SHARED_GPA = 0x801000
"""vCPU 0's shared area (struct kvm_vcpu_pv_apf_data); vCPU v's is 4096 * v above."""
PROGRAM_GPA = 0x840000
PROGRAM_END = 0xA00000
LOG_GPA = 0xA00000
"""Log of vCPU 0; vCPU v's is LOG_BYTES * v above."""
LOG_BYTES = 0x40000
LOG_RECORDS = 8192
LOG_FULL = LOG_RECORDS // 2
"""Records of one vCPU at which the agent ends a run: the other half is for what comes until it has looked."""
POOL_GPA = 0x1000000
"""Pool page 0: everything below belongs to the probe guest itself."""

MAX_VCPUS = 16
MAX_ITEMS = 1024

VEC_TIMER = 0x40
"""Vector of the LAPIC timer."""
VEC_START = 0x41
"""Vector by which vCPU 0 starts the others after go."""
VEC_DELIVERED = 0x42
"""Vector that a vCPU sends itself for an item whose access the delivery of an interrupt makes."""
VEC_HELD_LOW, VEC_HELD_HIGH = 0x22, 0xFE
"""Vectors that a vCPU sends itself for an item of which an interrupt is in service: below and above all others."""
VEC_INJECTED = 0xFF
"""Vector that an L1 gives its L2 by EVENTINJ or V_IRQ; the spurious interrupt's, which asks for no EOI."""
VEC_ENDED = 0x81
"""Vector of the INT at the end of an access."""
EXCEPTIONS = range(16, 32)
"""Vectors that a LAPIC delivers and the guest takes for exceptions."""
UNMAPPED_GVA = 0x123456000
"""Where the guest makes a #PF of its own: above everything that it maps."""
MOVED_GPA = 0x80000000
"""Where an L2 whose nested tables are no identity map has the guest's memory: this much above where it is."""
STUBS_GPA = 0x100000
"""The trap stub of vector 0, at the image's begin; that of vector n is 16 * n above.  So the agent can write an IDT."""
SEL_CODE64 = 0x08
VEC_NMI, VEC_PF = 2, 14

CONTROL_MAGIC = 0x3150424F52504641  # "AFPROBP1"
END_MARK_XOR = 0xA5A5A5A5A5A5A5A5
ITEMS_MAGIC = 0x314D455449465041  # "APFITEM1"
ITEMS_VERSION = 1
PAGE_WORD_XOR = 0x5555555555555555
NO_ITEM = 0xFFFFFFFF
"""Item of a log record that belongs to none."""
FOUND = 1 << 32
"""Set in the record of a clear_token's end beside the token word that it took away; older guests logged 0."""
RESETS_BITS, LEAF_BITS = 16, 16
"""Of the record of a boot b: the number of resets before, then a FeaturesLeaf, then EAX of that leaf (32 bits)."""
OWN_AREA = MASK64
"""items_header.en_gpa: each vCPU's own shared area."""

_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class State(IntEnum):
    """Where the guest is: control_page.state."""

    NONE = 0
    READY = 1  # waits for go
    RUNNING = 2
    HOST = 3  # waits for the agent to perform host action ``host_index``
    DONE = 4
    PANIC = 5


class Record(IntEnum):
    """Kinds of log records."""

    BOOT = 1
    START = 2
    END = 3
    TOKEN = 4
    READY = 5
    IRQ = 6
    FAULT = 7
    CR2 = 8
    STAGE = 9
    MSR = 10
    WAKE = 11
    IDLE = 12
    DONE = 13
    L2_EXIT = 14
    L2_WORDS = 15
    L2_FAULT = 16
    PAGE_FAULT = 17
    NMI = 18


class FeaturesLeaf(IntEnum):
    """Where a vCPU found KVM's CPUID leaf of features (KVM_CPUID_FEATURES) when it booted."""

    NOT_READ = 0  # by guests of before format 8
    NONE = 1  # no leaf names KVM
    FIRST = 2  # 0x40000001
    BEHIND = 3  # 0x40000101, behind the leaves of Hyper-V


class HeaderFlag(IntFlag):
    """items_header.flags."""

    APF_ZERO_TOKEN = 1
    APF_ACK = 2
    APF_ACK_FIRST = 4
    IDLE_HLT = 8
    LAPIC_BEFORE_EN = 16
    LAPIC_AFTER_EN = 32
    L2_GUEST = 64
    TAKES_NMIS = 128


class ItemFlag(IntFlag):
    """item.flags."""

    INTERRUPTS = 1
    SHADOW = 2
    NO_PAGING = 4
    WAIT = 8
    LEVEL2 = 16
    GIF_CLEAR = 32
    TPR = 64
    IN_SERVICE = 128


class L2Flag(IntFlag):
    """items_header.l2: how the guest's hypervisor runs its L2."""

    NPT = 1
    INTERCEPT_PF = 2
    INTERCEPT_INTR = 4
    INTERCEPT_VINTR = 8
    INTR_MASKING = 16
    L1_INTERRUPTS = 32
    INJECT = 64
    VIRQ = 128
    MOVED = 256


class SvmExit(IntEnum):
    """Exit codes of a VMCB that the guest's hypervisor knows (arch/x86/include/uapi/asm/svm.h)."""

    EXCP_PF = 0x4E
    INTR = 0x60
    VINTR = 0x64
    VMMCALL = 0x81


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a C structure.  ``offset`` is the contract; what lies between two members is zero."""

    offset: int
    kind: str
    name: str
    note: str = ""
    count: int = 1
    dimension: str = ""
    volatile: bool = False

    @property
    def end(self) -> int:
        return self.offset + _SIZES[self.kind] * self.count


@dataclass(frozen=True, slots=True)
class Layout:
    """A C structure with the size that it must have, 0 for its natural one."""

    name: str
    members: tuple[Member, ...]
    size: int = 0

    def codec(self, *names: str) -> struct.Struct:
        """The members of these names, in the order of their offsets; the rest of the structure is skipped."""
        text, at = "<", 0
        wanted = [m for m in self.members if m.name in names]
        for member in wanted:
            gap = member.offset - at
            text += (f"{gap}x" if gap else "") + (str(member.count) if member.count > 1 else "") + _CODES[member.kind]
            at = member.end
        return struct.Struct(text + (f"{self.size - at}x" if self.size > at else ""))

    def at(self, name: str) -> Member:
        """The member of this name."""
        return next(m for m in self.members if m.name == name)


CONTROL_PAGE = Layout("control_page", (
    Member(0, "u64", "magic"),
    Member(8, "u64", "nonce"),
    Member(16, "u32", "state", volatile=True),
    Member(20, "u32", "go", "the agent's: one more for each hand-over", volatile=True),
    Member(24, "u32", "host_index"),
    Member(28, "u32", "ended", "vCPUs whose program has ended, once the boot CPU's has", volatile=True),
    Member(32, "u64", "end_mark", "nonce ^ END_MARK_XOR, written last"),
    Member(40, "u64", "tsc_khz"),
    Member(48, "u32", "host_entries"),
    Member(64, "u32", "log_count", "records in the log of each vCPU", MAX_VCPUS, "MAX_VCPUS", volatile=True),
    Member(512, "u32", "boots", "from here on the guest's own: what must survive a reset of the machine"),
    Member(516, "u32", "go_seen", "go before the HOST item that the guest waits in"),
    Member(520, "u32", "host_vcpu", "all ones: no HOST item is waited in"),
    Member(524, "u32", "host_item"),
    Member(528, "u32", "next", "position in the program from which each vCPU goes on", MAX_VCPUS, "MAX_VCPUS"),
    Member(592, "u32", "done", "items ended", MAX_VCPUS, "MAX_VCPUS"),
))  # fmt: skip
ITEMS_HEADER = Layout("items_header", (
    Member(0, "u64", "magic"),
    Member(8, "u64", "nonce"),
    Member(16, "u32", "version"),
    Member(20, "u32", "vcpus"),
    Member(24, "u32", "count"),
    Member(28, "u32", "flags"),
    Member(32, "u64", "en_flags"),
    Member(40, "u64", "en_gpa"),
    Member(48, "u32", "vector"),
    Member(52, "u32", "l2"),
    Member(56, "u64", "apic_ids", "bit n: of a vCPU, in the order of their numbers; 0: the numbers are the ids"),
), 64)  # fmt: skip
ITEM = Layout("item", (
    Member(0, "u32", "index"),
    Member(4, "u8", "op"),
    Member(5, "u8", "vcpu"),
    Member(6, "u8", "write"),
    Member(7, "u8", "cpl"),
    Member(8, "u32", "flags"),
    Member(12, "u32", "msr"),
    Member(16, "u64", "gpa"),
    Member(24, "u64", "value"),
    Member(32, "u32", "pause_us"),
    Member(36, "u8", "by"),
), 64)  # fmt: skip
RECORD = Layout("record", (
    Member(0, "u64", "tsc"),
    Member(8, "u16", "kind"),
    Member(10, "u16", "vcpu"),
    Member(12, "u32", "item"),
    Member(16, "u64", "a"),
    Member(24, "u64", "b"),
), 32)  # fmt: skip
LAYOUTS = (CONTROL_PAGE, ITEMS_HEADER, ITEM, RECORD)


def whole(layout: Layout) -> struct.Struct:
    """Codec of all members of a structure."""
    return layout.codec(*(m.name for m in layout.members))


_CONTROL = CONTROL_PAGE.codec(
    "magic", "nonce", "state", "go", "host_index", "ended", "end_mark", "tsc_khz", "host_entries"
)
CONTROL_BYTES = CONTROL_PAGE.at("log_count").end
"""Of the control page, as far as the harness reads it."""
RECORD_CODEC = whole(RECORD)


@dataclass(frozen=True, slots=True)
class Control:
    """The control page (docs/formats/probe.md section 2); ``counts`` are log records of each vCPU."""

    magic: int
    nonce: int
    state: int
    go: int
    host_index: int
    ended: int
    end_mark: int
    tsc_khz: int
    host_entries: int
    counts: tuple[int, ...]

    @property
    def is_valid(self) -> bool:
        """Whether a probe guest has set the page up."""
        return self.magic == CONTROL_MAGIC

    def is_of(self, nonce: int) -> bool:
        """Whether the guest with this nonce has set the page up."""
        return self.is_valid and self.nonce == nonce

    def is_complete(self, nonce: int) -> bool:
        """Whether the guest with this nonce has come to its end."""
        return self.is_of(nonce) and self.end_mark == nonce ^ END_MARK_XOR


def decode_control(raw: bytes, vcpus: int) -> Control:
    """``raw``: at least CONTROL_BYTES of the control page; ``vcpus``: at most MAX_VCPUS."""
    counts = struct.unpack_from(f"<{vcpus}I", raw, CONTROL_PAGE.at("log_count").offset)
    magic, nonce, state, go, host_index, ended, end_mark, tsc_khz, entries = _CONTROL.unpack_from(raw)
    return Control(magic, nonce, state, go, host_index, ended, end_mark, tsc_khz, entries, counts)


def page_word(gpa: int, nonce: int) -> int:
    """The first 8 bytes of a pool page that the agent has filled, and so what a read touch of it logs."""
    return (gpa ^ nonce ^ PAGE_WORD_XOR) & MASK64


def ist(vector: int) -> int:
    """Which stack of the TSS the vector's gate names.  An NMI may come in a handler; the third is where the page of an
    item is the stack of its event, and else the first."""
    return {VEC_NMI: 2, VEC_PF: 3, VEC_DELIVERED: 3}.get(vector, 1)


def gate(vector: int) -> bytes:
    """An interrupt gate to the vector's stub (AMD64 Architecture Programmer's Manual vol. 2, 4.8.4), as cpu.c:build_idt
    has it: only VEC_ENDED may be raised from CPL 3."""
    to, kind = STUBS_GPA + 16 * vector, 0xEE00 if vector == VEC_ENDED else 0x8E00
    return struct.pack("<HHHHQ", to & 0xFFFF, SEL_CODE64, kind | ist(vector), to >> 16, 0)


def header() -> str:
    """layout.h: what C and assembly of the probe guest know of this module."""
    return "\n".join(_header()) + "\n"


def _header() -> Iterator[str]:
    yield "/* SPDX-License-Identifier: GPL-2.0-or-later */"
    yield "/* Made from harness/contract/probe_abi.py by `make layout`: change it there. */"
    yield "#ifndef LAYOUT_H"
    yield "#define LAYOUT_H"
    yield ""
    for name in ("CONTROL_GPA", "SHARED_GPA", "PROGRAM_GPA", "PROGRAM_END", "LOG_GPA", "LOG_BYTES", "POOL_GPA"):
        yield _define(name, f"{globals()[name]:#x}")
    for name in ("LOG_RECORDS", "MAX_VCPUS", "MAX_ITEMS", "ITEMS_VERSION"):
        yield _define(name, str(globals()[name]))
    for name in (
        "VEC_TIMER",
        "VEC_START",
        "VEC_DELIVERED",
        "VEC_HELD_LOW",
        "VEC_HELD_HIGH",
        "VEC_INJECTED",
        "VEC_ENDED",
    ):
        yield _define(name, f"{globals()[name]:#x}")
    yield _define("UNMAPPED_GVA", f"{UNMAPPED_GVA:#x}")
    yield _define("MOVED_GPA", f"{MOVED_GPA:#x}")
    yield _define("STUBS_GPA", f"{STUBS_GPA:#x}")
    yield ""
    yield "#ifndef __ASSEMBLY__"
    yield ""
    for code, name in (("u8", "__UINT8_TYPE__"), ("u16", "__UINT16_TYPE__"), ("u32", "__UINT32_TYPE__"),
                       ("u64", "__UINT64_TYPE__")):  # fmt: skip
        yield f"typedef {name} {code};"
    yield ""
    for name in ("CONTROL_MAGIC", "END_MARK_XOR", "ITEMS_MAGIC", "OWN_AREA", "FOUND"):
        yield _define(name, f"{globals()[name]:#x}ull")
    yield _define("NO_ITEM", f"{NO_ITEM:#x}u")
    yield ""
    yield from _enum({f"STATE_{s.name}": s.value for s in State})
    yield from _enum({f"LOG_{r.name}": r.value for r in Record})
    yield from _enum({f"LEAF_{leaf.name}": leaf.value for leaf in FeaturesLeaf})
    yield from _enum({f.name or "": f.value for f in HeaderFlag})
    yield from _enum({f"ITEM_{f.name}": f.value for f in ItemFlag})
    yield from _enum({f"L2_{f.name}": f.value for f in L2Flag})
    yield from _enum({f"SVM_EXIT_{e.name}": e.value for e in SvmExit})
    yield from _enum({**{f"BY_{by.name}": by.number for by in By}, "BY_COUNT": len(By)})
    yield from _enum({**{f"OP_{op.name}": op.number for op in Op}, "OP_COUNT": max(op.number for op in Op) + 1})
    for layout in LAYOUTS:
        yield ""
        yield from _structure(layout)
    yield ""
    yield "#endif"
    yield "#endif"


def _define(name: str, value: str) -> str:
    return f"#define {name}\t{value}"


def _enum(values: dict[str, int]) -> Iterator[str]:
    yield "enum {"
    for name, value in values.items():
        yield f"\t{name} = {value},"
    yield "};"


def _structure(layout: Layout) -> Iterator[str]:
    """The structure, and assertions that the compiler has laid it out so."""
    yield f"struct {layout.name} {{"
    at, pads = 0, 0
    for member in layout.members:
        if member.offset > at:
            yield f"\tu8 pad{pads}[{member.offset - at}];"
            pads += 1
        kind = f"volatile {member.kind}" if member.volatile else member.kind
        size = f"[{member.dimension}]" if member.count > 1 else ""
        yield f"\t{kind} {member.name}{size};\t/* {member.offset}{': ' + member.note if member.note else ''} */"
        at = member.end
    if layout.size > at:
        yield f"\tu8 pad{pads}[{layout.size - at}];"
    yield "};"
    for member in layout.members:
        place = f"__builtin_offsetof(struct {layout.name}, {member.name})"
        yield f'_Static_assert({place} == {member.offset}, "{member.name}");'
    if layout.size:
        yield f'_Static_assert(sizeof(struct {layout.name}) == {layout.size}, "{layout.name}");'


if __name__ == "__main__":
    sys.stdout.write(header())
