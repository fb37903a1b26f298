# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line of the agent: perform, serve, reserve, undo, facts, kexec."""

from __future__ import annotations

import argparse
import sys

from harness.agent.by_sudo import caller
from harness.agent.capture_folder import stdout_stream
from harness.agent.host.host_facts import host_facts, qemu_version
from harness.agent.host.kernel_files import available_mib, read_text
from harness.agent.host.kexec import boot_other, offer
from harness.agent.host.reserve import STATE, ReserveOptions, reserve
from harness.agent.host.undo import undo
from harness.agent.host.userfault import has_userfaultfd
from harness.agent.perform import exit_code, perform
from harness.agent.serve import serve
from harness.contract.host_needs import HostOffers
from harness.contract.plan import Plan, from_json
from harness.contract.service import AgentOptions
from harness.contract.structure import to_json
from harness.errors import ApfError, UsageError


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done (end.json says how it ended), 2 bad usage or plan, 3 our or the machine's fault."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except UsageError as exc:
        print(f"apf agent: {exc}", file=sys.stderr)
        return exc.exit_code
    except (ApfError, OSError) as exc:
        print(f"apf agent: {exc}", file=sys.stderr)
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent.pyz", description="Performs plans of apf on this host. Runs as root.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("perform", help="perform a plan, leave a capture folder, undo everything")
    run.add_argument("--plan", required=True, help="plan.json")
    run.add_argument("--out", required=True, help="capture folder, made if it is not there")
    run.add_argument("--probe", default="", help="the probe guest (ELF)")
    run.add_argument("--disk", default="", help="a disk whose contents may be overwritten, for dm-delay")
    run.add_argument("--qemu", default="qemu-system-x86_64")
    run.add_argument("--guest-kernel", default="", help="Linux guests: bzImage")
    run.add_argument("--guest-initrd", default="", help="Linux guests: cpio archive")
    run.add_argument("--program", default="", help="of a plan for a host program")
    run.add_argument(
        "--journal", default="", help="where changes to the host are noted (default: journal.jsonl in --out)"
    )
    run.add_argument("--accel", default="kvm", choices=("kvm", "tcg"), help="tcg: only to test the agent itself")
    run.add_argument("--detached", action="store_true", help="do not end when stdin is closed")
    run.set_defaults(run=_perform)
    many = commands.add_parser("serve", help="perform plans that come over stdin, one after the other")
    many.add_argument("--scope", default="", help="cgroup of the run, made by reserve")
    many.add_argument("--folder", default="", help="of the run, made by reserve")
    many.set_defaults(run=lambda args: serve(scope=args.scope, folder=args.folder))
    one = commands.add_parser("reserve", help="hold this machine for one run, until stdin ends")
    one.add_argument("--name", required=True, help="name of the run")
    one.add_argument("--who", default="", help="told to others that wait")
    one.add_argument("--wait", type=float, default=0.0, metavar="S", help="for another run to end (default: refuse)")
    one.add_argument("--silence", type=float, default=60.0, metavar="S", help="without input for so long: the end")
    one.add_argument("--limit", type=float, default=86400.0, metavar="S", help="of the whole reservation")
    one.add_argument("--scratch", default="/var/tmp", help="folder for a swap file; its free space is told")
    one.add_argument(
        "--disk-mib", type=int, default=0, metavar="N", help="make a loop device for swap, at most so large"
    )
    one.add_argument("--compare", action="store_true", help="tell whatever is not as before at the end")
    one.add_argument("--state", default=STATE, help="folder for the lock and for what runs put here")
    one.set_defaults(run=_reserve)
    back = commands.add_parser("undo", help="take back what a killed agent left on the host")
    back.add_argument("--journal", required=True)
    back.set_defaults(run=_undo)
    facts = commands.add_parser("facts", help="print what this host offers, as JSON (HostOffers)")
    facts.add_argument("--disk", default="", help="a disk whose contents may be overwritten")
    facts.add_argument("--memory-mib", type=int, default=0, help="what guests may take")
    facts.add_argument("--qemu", default="qemu-system-x86_64")
    facts.set_defaults(run=_facts)
    other = commands.add_parser("kexec", help="boot another kernel in place of this one, once; nothing is installed")
    other.add_argument(
        "--check", metavar="ADDRESS", help="only say, as JSON (KexecOffer), whether it can be; ADDRESS may be empty"
    )
    other.add_argument("--kernel", default="", help="bzImage")
    other.add_argument("--initrd", default="", help="cpio archives")
    other.add_argument("--cmdline", default="")
    other.add_argument("--journal", default="", help="where it is noted that a kernel is loaded")
    other.set_defaults(run=_kexec)
    return parser


def _perform(args: argparse.Namespace) -> int:
    try:
        plan = from_json(Plan, read_text(args.plan))
    except OSError as exc:
        raise UsageError(f"{args.plan}: {exc.strerror}") from exc
    options = AgentOptions(
        out=args.out, probe=args.probe, disk=args.disk, qemu=args.qemu, guest_kernel=args.guest_kernel,
        guest_initrd=args.guest_initrd, program=args.program, accel=args.accel, journal=args.journal,
    )  # fmt: skip
    stdin = None if args.detached else sys.stdin.fileno()
    return exit_code(perform(plan, options, stream=stdout_stream(), stdin=stdin))


def _reserve(args: argparse.Namespace) -> int:
    options = ReserveOptions(
        run=args.name, wait_s=args.wait, silence_s=args.silence, limit_s=args.limit, scratch=args.scratch,
        who=args.who, disk_mib=args.disk_mib, compare=args.compare, state=args.state,
    )  # fmt: skip
    return reserve(options)


def _undo(args: argparse.Namespace) -> int:
    problems = undo(args.journal)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 3 if problems else 0


def _facts(args: argparse.Namespace) -> int:
    if caller() is not None and args.qemu != AgentOptions("").qemu:
        raise UsageError("--qemu is not for those who come by sudo: it would be run as root")
    offers = HostOffers(
        host_facts(), qemu_version(args.qemu), has_userfaultfd(), available_mib(), disk=args.disk,
        memory_limit_mib=args.memory_mib,
    )  # fmt: skip
    print(to_json(offers))
    return 0


def _kexec(args: argparse.Namespace) -> int:
    if caller() is not None:
        raise UsageError("kexec is not for those who come by sudo")
    if args.check is not None:
        print(to_json(offer(args.check)))
        return 0
    boot_other(args.kernel, args.initrd, args.cmdline, args.journal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
