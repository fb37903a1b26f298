# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures how fast things are and keeps the table in docs/performance.md: `make bench`.

    python -m tests.bench [--write PAGE] [PART ...]

Parts are the functions of PARTS.  Everything is measured warm: kernels, images and the environment are there.  On a
machine that does something else the figures are worth nothing; the load of before is written beside each.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.artifacts.layout import REPOSITORY
from harness.contract.capture import TRACE_DAT
from harness.hosts.accel import rule_out
from harness.judge.verdict_types import Verdict
from harness.report.bench_text import Measured, bench_section, merged, rows_of
from harness.report.mutants_text import replace_section
from harness.results import RunResult
from harness.run.drawings import write_drawings
from harness.run.judge_folder import judge_folder_whole
from harness.run.report_folder import read_run, write_page
from harness.run.step_times import step_times

Figures = Iterator[tuple[str, str, str]]
"""What, its aim, and what was measured."""
LONG = {"S01": "a Linux guest boots", "S60M": "many tokens"}
"""Where the judge has most to read, and where it has most to do for a line."""


class NotGreen(Exception):
    """What is red is not measured."""


def make(target: str, results: Path, **variables: str) -> float:
    """Seconds of a target.

    :raise NotGreen: it failed.
    """
    words = [f"{name}={value}" for name, value in {**variables, "RESULTS": str(results)}.items()]
    begin = time.monotonic()
    done = subprocess.run(["make", "--no-print-directory", target, *words], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise NotGreen(f"make {target} ended with code {done.returncode}")
    return time.monotonic() - begin


def run_in(results: Path) -> tuple[Path, RunResult]:
    """The newest run of a folder."""
    folder = (results / "latest").resolve()
    return folder, read_run(folder)


def smoke(scratch: Path) -> Figures:
    """A few scenarios, one boot."""
    yield "`make smoke`", "20 s", f"{make('smoke', scratch / 'smoke'):.0f} s"


def e2e(scratch: Path) -> Figures:
    """All scenarios on two kernels, what one takes, the judge on all of it, and the page."""
    yield "`make e2e`", "90 s", f"{make('e2e', scratch / 'e2e'):.0f} s"
    folder, result = run_in(scratch / "e2e")
    times = list(step_times(folder, result.rows))
    probe = [t.seconds for t in times if "start-guest" in t.steps]
    work = sum(t.seconds for t in times)
    told = f"{statistics.median(probe):.2f} s ({len(times)} verdicts, {work:.0f} s of work)"
    yield "a scenario from plan to verdict, median", "1.0 s", told
    captures = [folder / row.folder / "capture" for row in result.rows]
    yield "judge, all captures of `make e2e`", "500,000 lines/s", judged([c for c in captures if lines_of(c)])
    yield from page(folder, result)


def judge(scratch: Path) -> Figures:
    """The judge on long traces, against trace-cmd on the same recordings."""
    results = scratch / "judge"
    words = [sys.executable, "-m", "harness.cli", "run", *LONG, "--trace-dat", "--results", str(results)]
    if subprocess.run(words, cwd=REPOSITORY, check=False).returncode:
        raise NotGreen(f"{' or '.join(LONG)} is not green")
    folder, result = run_in(results)
    for row in result.rows:
        capture, name = folder / row.folder / "capture", row.key.scenario
        yield f"judge, {name}: {LONG[name]}", "500,000 lines/s", judged([capture])
        if shutil.which("trace-cmd") is not None:
            yield f"`trace-cmd report`, {name}", "", printed(capture)


def printed(capture: Path) -> str:
    """Lines for each second of CPU that trace-cmd needs for the same recording."""
    count = lines_of(capture)
    runs = max(3, 100_000 // count)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(runs):
        subprocess.run(["trace-cmd", "report", "-i", capture / TRACE_DAT], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / runs
    return f"{count / spent:,.0f} lines/s ({count:,} lines, {spent:.3f} s of CPU)"


def test(scratch: Path) -> Figures:
    """The project's own tests."""
    yield "`make test`", "60 s", f"{make('test', scratch / 'test'):.0f} s"
    yield "`make test-all`", "", f"{make('test-all', scratch / 'test-all'):.0f} s"


def fresh(scratch: Path) -> Figures:
    """From a clone with no caches to a green e2e."""
    clone = scratch / "clone"
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")}
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    begin = time.monotonic()
    done = subprocess.run(["make", "e2e", f"RESULTS={scratch / 'fresh'}"], cwd=clone, env=environment, check=False)
    if done.returncode:
        raise NotGreen(f"make e2e in a fresh clone ended with code {done.returncode}")
    yield "from a fresh clone to a green `make e2e`", "8 minutes", f"{(time.monotonic() - begin) / 60:.1f} minutes"


PARTS: dict[str, Callable[[Path], Figures]] = {f.__name__: f for f in (smoke, judge, e2e, test, fresh)}
DEFAULT = ("smoke", "judge", "e2e", "test")
"""``fresh`` downloads packages and builds kernels: only when it is named."""


def lines_of(capture: Path) -> int:
    """Lines of a capture's trace; 0 where there is none."""
    trace = capture / "trace/events.txt"
    return trace.read_bytes().count(b"\n") if trace.is_file() else 0


def judged(captures: Sequence[Path]) -> str:
    """Lines for each second of CPU, reading and decoding included: the best of three for one capture, once for many."""
    models = [read_model(capture) for capture in captures]
    best = float("inf")
    for _ in range(3 if len(captures) == 1 else 1):
        begin = time.process_time()
        for capture, model in zip(captures, models, strict=True):
            judge_folder_whole(capture, model)
        best = min(best, time.process_time() - begin)
    count = sum(map(lines_of, captures))
    return f"{count / best:,.0f} lines/s ({len(captures)} captures, {count:,} lines, {best:.2f} s of CPU)"


def read_model(capture: Path) -> str:
    """What judged it."""
    return Verdict.from_json((capture.parent / "verdict.json").read_text()).judged_by


def page(folder: Path, result: RunResult) -> Figures:
    """The page of a whole run, and what drawing costs: part of each verdict's time."""
    begin = time.process_time()
    size = write_page(folder, result).stat().st_size
    yield "the page of `make e2e`", "2 MB", f"{size / 1e6:.2f} MB, {time.process_time() - begin:.1f} s of CPU"
    spent = []
    for row in result.rows:
        if lines_of(folder / row.folder / "capture"):
            whole = judge_folder_whole(folder / row.folder / "capture", row.verdict.judged_by)
            begin = time.process_time()
            write_drawings(folder / row.folder, whole)
            spent.append(time.process_time() - begin)
    told = f"{sum(spent):.1f} s of CPU, {statistics.median(spent) * 1000:.0f} ms in the median"
    yield "timelines of all verdicts of `make e2e`", "", told


def machine() -> str:
    """Processors, memory, and whether guests run on hardware."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kvm = "hosts under TCG" if rule_out() else "hosts under KVM"
    return f"{os.cpu_count()} x {names[0] if names else os.uname().machine}, {gib:.0f} GiB, {kvm}"


def when() -> str:
    """Now, the commit, and the load of the last minute."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {commit or 'no commit'}, load {os.getloadavg()[0]:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)} (default: {', '.join(DEFAULT)})")
    args = parser.parse_args()
    wrong = [name for name in args.part if name not in PARTS]
    if wrong:
        parser.error(f"no part is called {', '.join(wrong)}; there are {', '.join(PARTS)}")
    red: list[str] = []
    scratch = Path(tempfile.mkdtemp(prefix="apf-bench-"))
    for name in args.part or DEFAULT:
        at = when()
        rows: list[Measured] = []
        try:
            for what, aim, measured in PARTS[name](scratch):
                rows.append(Measured(what, aim, measured, at, machine()))
                print(f"{what}: {measured}{f' (aim {aim})' if aim else ''}", flush=True)
        except NotGreen as exc:
            red.append(name)
            print(f"{name}: {exc}: not measured", file=sys.stderr)
        finally:  # whoever ends it loses no more than what is being measured
            if args.write is not None:
                text = args.write.read_text() if args.write.exists() else ""
                args.write.write_text(replace_section(text, bench_section(merged(rows_of(text), rows))))
    if red:
        print(f"evidence: {scratch}", file=sys.stderr)
        return 1
    shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
