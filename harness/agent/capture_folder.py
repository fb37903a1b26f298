# SPDX-License-Identifier: GPL-2.0-or-later
"""The capture folder (docs/formats/capture.md) and the stream of progress."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import IO

from harness.contract.capture import MESSAGES_LOST, NO_DETAILS, AgentStep, ProgressLine, StepDetails
from harness.contract.structure import to_json

_KMSG = "/dev/kmsg"


class Capture:
    """Writes into one folder.  Steps go to progress.jsonl and, as the same JSON lines, to ``stream``."""

    def __init__(self, folder: str, stream: IO[str] | None = None) -> None:
        self.folder = folder
        self._stream = stream
        for name in ("trace", "counters", "program", "guest", "host"):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
        self._start = time.monotonic()
        self._progress = open(f"{folder}/progress.jsonl", "a", encoding="utf-8")  # noqa: SIM115  (closed by close)

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def step(self, step: AgentStep, details: StepDetails = NO_DETAILS) -> None:
        """One step of the agent, with what it has to say."""
        now = time.monotonic()
        progress = ProgressLine(round(now - self._start, 3), round(now, 6), step, details)
        line = json.dumps(progress.as_line()) + "\n"
        self._progress.write(line)
        self._progress.flush()
        if self._stream is not None:
            # A reader that went away is noticed by stdin; it must not keep the evidence from being written.
            with suppress(OSError, ValueError):
                self._stream.write(line)
                self._stream.flush()

    def write_json(self, name: str, record: object) -> None:
        """A record of harness/contract/capture.py.  Written to the side first: a file that exists is complete."""
        with open(self.path(name + ".part"), "w", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")
        os.replace(self.path(name + ".part"), self.path(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        with open(self.path(name), "wb") as file:
            file.write(data)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def close(self) -> None:
        self._progress.close()


class KernelLog:
    """The host's kernel log from now on, through /dev/kmsg."""

    def __init__(self) -> None:
        self._fd = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def mark(self, text: str) -> None:
        """A line of ours, where the host's kernel takes any (not with printk.devkmsg=off)."""
        with suppress(OSError), open(_KMSG, "wb", buffering=0) as file:
            file.write(f"<6>{text}\n".encode())  # without an end of line it may be continued, and is not read

    def rest(self) -> str:
        """Everything since the object was made, one message per line with its time in seconds."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._fd, 16384).decode(errors="replace")
            except BlockingIOError:
                return "".join(lines)
            except BrokenPipeError:  # the ring buffer overran us; the next read goes on with what is left
                lines.append(f"{MESSAGES_LOST}\n")
                continue
            head, _, text = record.partition(";")
            fields = head.split(",")
            lines.append(f"[{int(fields[2]) / 1e6:12.6f}] {text.splitlines()[0] if text else ''}\n")

    def close(self) -> None:
        os.close(self._fd)


def stdout_stream() -> IO[str]:
    return sys.stdout
