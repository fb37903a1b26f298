# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat as trace-cmd reads it: from this machine's tracefs, and from a folder made by hand."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness.agent.host.trace_dat import write_trace_dat
from harness.agent.host.tracing import Tracing
from harness.errors import InfraFault
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import HANG_S

PAGE, PAGE_HEADER = 4096, 16
HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    f"\tfield: char data;\toffset:{PAGE_HEADER};\tsize:{PAGE - PAGE_HEADER};\tsigned:1;\n"
)
HEADER_EVENT = (
    "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
    "\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
)
READY, READY_ID = "kvm_async_pf_ready", 77
FORMAT = f"""name: {READY}
ID: {READY_ID}
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__u64 token;\toffset:8;\tsize:8;\tsigned:0;
\tfield:__u64 gva;\toffset:16;\tsize:8;\tsigned:0;

print fmt: "token %#llx gva %#llx", REC->token, REC->gva
"""

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")


def page(begin_ns: int, events: list[tuple[int, int, int, int]]) -> bytes:
    """A page of the ring buffer (include/linux/ring_buffer.h); events: ns after the one before, pid, token, gva."""
    data = b""
    for delta, pid, token, gva in events:
        payload = struct.pack("<HBBiQQ", READY_ID, 0, 0, pid, token, gva)
        data += struct.pack("<I", len(payload) // 4 | delta << 5) + payload
    return (struct.pack("<QQ", begin_ns, len(data)) + data).ljust(PAGE, b"\0")


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    """A folder that looks like tracefs with an instance "i" of three CPUs, the second of which saw nothing."""
    files = {
        "events/header_page": HEADER_PAGE.encode(),
        "events/header_event": HEADER_EVENT.encode(),
        "events/ftrace/enable": b"0\n",
        "saved_cmdlines": b"163 CPU 0/KVM\n164 CPU 1/KVM\n",
        "instances/i/trace_clock": b"local [mono] boot\n",
        f"instances/i/events/kvm/{READY}/format": FORMAT.encode(),
        "instances/i/per_cpu/cpu0/trace_pipe_raw": page(2_000_000_000, [(0, 163, 0x1000, 0x8000), (2_000, 163, 2, 3)])
        + page(3_000_000_000, [(7_000, 163, 0x2000, 0x9000)]),
        "instances/i/per_cpu/cpu1/trace_pipe_raw": b"",
        "instances/i/per_cpu/cpu2/trace_pipe_raw": page(2_500_000_000, [(1_000, 164, 0x1001, 0xA000)]),
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def report(file: Path) -> list[str]:
    done = subprocess.run(
        ["trace-cmd", "report", "-i", file], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert not done.stderr.strip(), done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(("cpus=", "CPU "))]


@needs_trace_cmd
def test_trace_cmd_reads_what_was_laid_down(tracefs: Path) -> None:
    write_trace_dat(str(tracefs), str(tracefs / "instances/i"), [f"kvm/{READY}"], str(tracefs / "trace.dat"))
    assert [" ".join(line.split()) for line in report(tracefs / "trace.dat")] == [
        f"CPU 0/KVM-163 [000] 2.000000: {READY}: token 0x1000 gva 0x8000",
        f"CPU 0/KVM-163 [000] 2.000002: {READY}: token 0x2 gva 0x3",
        f"CPU 1/KVM-164 [002] 2.500001: {READY}: token 0x1001 gva 0xa000",
        f"CPU 0/KVM-163 [000] 3.000007: {READY}: token 0x2000 gva 0x9000",
    ]


@needs_trace_cmd
def test_the_clock_is_told(tracefs: Path) -> None:
    write_trace_dat(str(tracefs), str(tracefs / "instances/i"), [f"kvm/{READY}"], str(tracefs / "trace.dat"))
    words = ["trace-cmd", "dump", "--summary", "-i", tracefs / "trace.dat"]
    assert (
        "local [mono] boot" in subprocess.run(words, capture_output=True, text=True, check=True, timeout=HANG_S).stdout
    )


def test_half_a_page_is_no_page(tracefs: Path) -> None:
    raw = tracefs / "instances/i/per_cpu/cpu2/trace_pipe_raw"
    raw.write_bytes(raw.read_bytes()[:100])
    with pytest.raises(InfraFault, match="100 bytes of a page of 4096"):
        write_trace_dat(str(tracefs), str(tracefs / "instances/i"), [f"kvm/{READY}"], str(tracefs / "trace.dat"))


def test_a_page_of_unknown_size_is_not_guessed(tracefs: Path) -> None:
    (tracefs / "events/header_page").write_bytes(b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n")
    with pytest.raises(InfraFault, match="no field data"):
        write_trace_dat(str(tracefs), str(tracefs / "instances/i"), [f"kvm/{READY}"], str(tracefs / "trace.dat"))


@root_only
@needs_trace_cmd
def test_of_a_real_kernel_both_files_have_the_same_events(instance: Tracing, tmp_path: Path) -> None:
    instance.start()
    for _ in range(20):
        time.sleep(0.001)  # each is a switch to another thread and back
    instance.stop()
    instance.save(str(tmp_path / "events.txt"))
    write_trace_dat(instance.root, instance.path, instance.events, str(tmp_path / "trace.dat"))
    stamp = re.compile(r"\[(\d+)\].*? (\d+\.\d{6}): (\w+):")
    text = [stamp.search(line) for line in (tmp_path / "events.txt").read_text().splitlines() if line[:1] != "#"]
    binary = [stamp.search(line) for line in report(tmp_path / "trace.dat")]
    assert len(text) > 20
    assert sorted(m.groups() for m in text if m) == sorted(m.groups() for m in binary if m)
    assert len(text) == len(binary) and None not in text and None not in binary
    assert "sched_switch:" not in instance.text(), "moved, not copied"
