# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf explain``: the walk of one access through the kernel's functions, and where two kernels part."""

from __future__ import annotations

import argparse
import json

from harness.cli import options
from harness.errors import UsageError
from harness.model.kernels import KERNEL_NAMES
from harness.model.readahead import ReadaheadState
from harness.model.walk.page_states import BACKING_NAMES, STATES, page_in_state
from harness.model.walk.steps import Environment
from harness.model.walk.walk_diff import Question, VcpuState, compare
from harness.report.explain_text import as_json, diff_json, diff_text, walk_text
from harness.run.model_named import model_named

_FLAGS = {
    "synchronous": "the swap device is SWP_SYNCHRONOUS_IO (zram, brd, pmem)",
    "fast": "the swap device has finished each read before the submitter looks again",
    "read-fails": "reading the page ends in an I/O error",
    "charge-fails": "no memory for the page: the charge to the memory cgroup fails",
    "read-only-vma": "the VMA lacks VM_WRITE",
    "read-only-slot": "the memslot is read-only",
    "userfaultfd": "the range is registered for missing pages",
    "random-advice": "MADV_RANDOM on the mapping",
    "ksm": "the swapped page was merged by KSM",
}
_BOUNDS = {
    "page_cluster": (0, 16),  # a window of 64 Ki pages; the kernel's own sysctl allows up to 31
    "ra_pages": (0, 65_536),  # 256 MiB; read_ahead_kb has no limit of its own
    "mmap_miss": (0, 1_000_000),
    "swap_count": (1, 65_536),
    "window": (1, 65_536),
}
"""Option -> lowest and highest value: each page of a window is walked, so that these decide how long it takes."""

_HELP = """\
Walk one access of a guest to one page through the functions of KVM and mm, step by step with what each tests, up to its
outcome (token, halt, a vCPU thread that waits, ...); or show where two kernels part and what of it can be observed.
"""
_EPILOG = """\
examples:
  apf explain --backing anon --state swapped --kernel nowait-6.1
  apf explain --backing anon-swapped --access write --kernel noio-6.1 --cpl 0
  apf explain --backing memfd --state swapped --compare noio-6.1 nowait-6.1
"""


def add(subparsers: options.Subparsers) -> None:
    """Register ``apf explain``."""
    parser = options.command(
        subparsers, "explain", _HELP,
        epilog=_EPILOG + "\npage states:\n" + "\n".join(f"  {n:20} {s.words}" for n, s in STATES.items()),
    )  # fmt: skip
    page = parser.add_argument_group("the page")
    page.add_argument("--backing", default="anon", help=f"{', '.join(BACKING_NAMES)}; or BACKING-STATE")
    page.add_argument("--state", default="", help="see below")
    page.add_argument("--access", choices=("read", "write"), default="read")
    page.add_argument("--swap-count", type=int, default=1, metavar="N", help="references to the swap slot")
    page.add_argument("--next-vma", choices=("writable", "read-only"), default="",
                      help="backing none: the VMA above the address")  # fmt: skip
    for name, text in _FLAGS.items():
        page.add_argument(f"--{name}", action="store_true", help=text)
    host = parser.add_argument_group("the host")
    host.add_argument(
        "--kernel", default="nowait-6.1", help=f"{', '.join(KERNEL_NAMES)}; VARIANT:RELEASE; or as `apf run` takes it"
    )
    host.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two kernels: print where they part")
    host.add_argument("--page-cluster", type=int, default=3, metavar="N", help="vm.page-cluster, default 3")
    host.add_argument("--rotational", action="store_true", help="a rotational swap device is active: cluster mode")
    host.add_argument("--window", type=int, metavar="N", help="swap read-ahead has decayed: last window N, no hits")
    host.add_argument("--ra-pages", type=int, default=32, metavar="N", help="read-ahead of the file, pages, default 32")
    host.add_argument("--mmap-miss", type=int, default=0, metavar="N", help="misses that the file remembers")
    vcpu = parser.add_argument_group("the vCPU")
    vcpu.add_argument("--cpl", type=int, choices=range(4), default=3)
    vcpu.add_argument("--interrupts", choices=("on", "off"), default="on", help="RFLAGS.IF")
    vcpu.add_argument("--shadow", action="store_true", help="STI or MOV SS shadow")
    vcpu.add_argument("--apf", choices=("on", "off"), default="on", help="MSR_KVM_ASYNC_PF_EN bits 0 and 3")
    vcpu.add_argument("--send-always", action="store_true", help="MSR_KVM_ASYNC_PF_EN bit 1")
    vcpu.add_argument("--paging", choices=("on", "off"), default="on", help="CR0.PG")
    vcpu.add_argument("--userspace-lapic", action="store_true", help="kernel-irqchip=off")
    vcpu.add_argument("--cpu-pm", action="store_true", help="HLT exits are disabled")
    vcpu.add_argument("--event-injected", action="store_true", help="the fault comes during event delivery")
    vcpu.add_argument("--live", action="store_true", help="an async page fault of this page is outstanding")
    vcpu.add_argument("--queue-full", action="store_true", help="64 async page faults are outstanding")
    parser.add_argument("--json", action="store_true", help="as JSON, with the source of each step")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the walk or the comparison.  :raise UsageError: impossible page, unknown kernel, bad number."""
    question, words = _question(args)
    if args.compare:
        first, second = (model_named(name) for name in args.compare)
        diff = compare(question.ask(first), question.ask(second))
        if args.json:
            print(json.dumps(diff_json(first, second, diff), indent=2))
        else:
            print(diff_text(words, first, second, diff))
        return 0
    kernel = model_named(args.kernel)
    walk = question.ask(kernel)
    print(json.dumps(as_json(kernel, walk), indent=2) if args.json else walk_text(words, kernel, walk))
    return 0


def _question(args: argparse.Namespace) -> tuple[Question, str]:
    backing, state = args.backing, args.state
    if not state:
        backing, state = _split(backing)
    for name, (low, high) in _BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be between {low} and {high}")
    page = page_in_state(
        backing, state, swap_count=args.swap_count, synchronous=args.synchronous, fast=args.fast,
        read_fails=args.read_fails, charge_fails=args.charge_fails, read_only_vma=args.read_only_vma,
        read_only_slot=args.read_only_slot, userfaultfd=args.userfaultfd, random_advice=args.random_advice,
        ksm=args.ksm, next_vma=args.next_vma,
    )  # fmt: skip
    vcpu = VcpuState(
        cpl=args.cpl, interrupts=args.interrupts == "on", shadow=args.shadow, apf_enabled=args.apf == "on",
        send_always=args.send_always, paging=args.paging == "on", lapic_in_kernel=not args.userspace_lapic,
        hlt_exits=not args.cpu_pm, event_injected=args.event_injected, live=args.live, queue_full=args.queue_full,
    )  # fmt: skip
    env = Environment(page_cluster=args.page_cluster, vma_readahead=not args.rotational, ra_pages=args.ra_pages)
    ra = ReadaheadState(mmap_miss=args.mmap_miss)
    if args.window is not None:
        ra = ReadaheadState(0, 0, args.window, 0, args.window, 0, args.mmap_miss)
    words = (f"page: {backing}, {state} ({STATES[state].words}); guest {args.access} at CPL {args.cpl}, "
             f"IF={int(vcpu.interrupts)}")  # fmt: skip
    return Question(page, args.access == "write", vcpu, env, ra), words


def _split(text: str) -> tuple[str, str]:
    """anon-swapped: backing and state in one word."""
    for backing in sorted(BACKING_NAMES, key=len, reverse=True):
        if text.startswith(backing + "-") and text[len(backing) + 1 :] in STATES:
            return backing, text[len(backing) + 1 :]
    if text in BACKING_NAMES:
        kind = BACKING_NAMES[text]
        fits = ", ".join(n for n, s in STATES.items() if kind in s.backings)
        raise UsageError(f"--state is missing; {text} memory can be: {fits}")
    raise UsageError(f"unknown backing {text!r}", hint=f"known: {', '.join(BACKING_NAMES)}; or BACKING-STATE")
