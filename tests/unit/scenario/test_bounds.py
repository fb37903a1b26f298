# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a file holds: plans, or messages with the file's name.  Never anything else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.contract.probe_abi import MAX_ITEMS
from harness.contract.program import encode_items
from harness.errors import ScenarioError
from harness.scenario import bounds
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

ROOT = Path(__file__).parents[3]
FILES = [f.read_text() for f in sorted((ROOT / "tests/scenarios").glob("*.toml"))]
SECONDS = 10.0
GOOD = 'id = "X1"\ntitle = "t"\n[pages.f]\ngroups = 4\n[[steps]]\ntouch = "f"\n'


def judged(text: str) -> str:
    """The message about a text; empty when it is accepted, and then everything that follows from it works."""
    try:
        scenarios = load_text("file.toml", text)
    except ScenarioError as exc:
        assert exc.message.startswith("file.toml: ")
        assert exc.message.replace("\n", "").isprintable(), ascii(exc.message)
        assert len(exc.message) < 60_000
        return exc.message
    else:
        assert scenarios
        for s in scenarios:
            plan = build_plan(s, 1)
            assert len(plan.items) <= MAX_ITEMS
            encode_items(plan)  # every value fits its field
        return ""


def test_the_documented_limits_are_the_real_ones() -> None:
    text = (ROOT / "docs/writing-scenarios.md").read_text().partition("## Limits")[2].partition("\n## ")[0]
    said = {int(n) for n in re.findall(r"\b\d+\b", text)}
    real = {value for name, value in vars(bounds).items() if name.startswith(("MAX_", "MIN_"))}
    real -= {bounds.MAX_U64, bounds.MAX_TAGS}
    assert real <= said, f"not documented: {real - said}"


STEP = '[[steps]]\ntouch = "f"\n'


LARGE = pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = " + "[" * 2000 + "]" * 2000, "nested too deeply"),
        ("\n".join(["x = " + "[" * 1800, "]" * 1800]), "nested too deeply"),
        (".".join(["a"] * 1500) + " = 1", "nested too deeply"),
        (".".join(["a"] * 100_000) + " = 1", "at most 4096"),
        ("# " + "x" * 300_000, "characters"),
        (GOOD + STEP * 1024, "1025 entries"),
        (GOOD + "[[timed]]\nat_ms = 1\nhost = []\n" * 65, "65 entries"),
        (GOOD.replace("groups = 4", "groups = 99999999999"), "$.pages.f.groups"),
        (GOOD.replace("groups = 4", "groups = " + "9" * 4000), "$.pages.f.groups"),
        (GOOD.replace("groups = 4", "groups = 0x" + "f" * 4000), "$.pages.f.groups"),
        (GOOD.replace("groups = 4", "groups = 9000\nrun = 9000\nstride = 9000"), "$.pages.f"),
        (GOOD.replace("groups = 4", "groups = 2\nrun = 40000\nstride = 40000"), "$.pages: 80000 pages"),
        (GOOD.replace("groups = 4", "groups = 1025\nstride = 1"), "more than 1024"),
        (GOOD.replace('touch = "f"', "touch = [" + '"f",' * 600 + "]"), "more than 1024"),
        (GOOD + "".join(f"[pages.p{i}]\ngroups = 1\n" for i in range(64)), "65 entries"),
        (GOOD + '[matrix]\n"swap.delay_ms" = ' + str(list(range(200))), "more than 128 combinations"),
        (GOOD + '[matrix]\n"a' + ".a" * 500 + '" = [1]', "nested so deeply"),
        (GOOD + '[matrix]\n"steps.' + "9" * 3000 + '.cpl" = [1]', "there is no element"),
        ("[[steps]]\ntouch = 2020-02-30", "not TOML"),
        ("", "required key 'id'"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)


@LARGE
def test_what_a_file_can_make_large_has_a_bound(text: str, told: str) -> None:
    assert told in judged(text)


@pytest.mark.bench
@LARGE
def test_what_is_large_is_told_in_a_short_time(text: str, told: str) -> None:
    began = time.process_time()
    assert told in judged(text)
    assert time.process_time() - began < SECONDS


words = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(), words,
    st.sampled_from(["f", "f[0]", "EN", "own|9", "freeze", "lock-read", "swapped", "dropped", "file", "zram"]),
)  # fmt: skip
KEYS = (
    "id", "title", "why", "tags", "variants", "guest", "apf", "memory", "swap", "pages", "steps", "timed", "matrix",
    "kernel_params", "deadline_s", "repeats", "kind", "vcpus", "memory_mib", "cpu", "irqchip", "en_flags", "vector",
    "en_gpa", "backing", "share", "delay_ms", "page_cluster", "size_mib", "f", "groups", "run", "stride", "offset",
    "start", "touch", "wrmsr", "value", "lapic", "paging", "timer_us", "pause", "wait_all", "host", "do", "arg", "page",
    "vcpu", "access", "cpl", "then", "pause_us", "at_ms", "workload", "workload_pages", "swap.delay_ms",
    "kernel_params_at_go",
)  # fmt: skip
keys = st.one_of(st.sampled_from(KEYS), words)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=12,
)


def toml(value: Any) -> str:
    """A value as TOML, all in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"


RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(st.dictionaries(keys, values, max_size=8))
@example({"id": "a\u202eb", "title": "x\x00\x1b[2J", "steps": [{"pause": True}]})
@example({"id": "a", "title": "b", "steps": [{"host": [{"do": "lock-read"}]}]})
@example({"id": "a", "title": "b", "timed": [{"at_ms": 1, "host": [{"do": "lock-read"}]}], "steps": [{"pause": True}]})
@example({"id": "a", "title": "b", "steps": {"pause": True}, "pages": 3, "guest": [], "colour": 1})
def test_any_table(table: dict[str, Any]) -> None:
    judged("\n".join(f"{toml(k)} = {toml(v)}" for k, v in table.items()))


@RELAXED
@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    judged(text)


@RELAXED
@given(st.sampled_from(FILES), st.data())
def test_any_change_of_a_value_of_a_real_file(text: str, data: st.DataObject) -> None:
    """One right-hand side is exchanged for something else."""
    lines = text.splitlines()
    assigned = [i for i, line in enumerate(lines) if re.match(r"[a-z_\"]+ *= *[^\[{]", line)]
    at = data.draw(st.sampled_from(assigned))
    lines[at] = f"{lines[at].partition('=')[0]}= {toml(data.draw(values))}"
    judged("\n".join(lines))


@RELAXED
@given(st.sampled_from(FILES), st.integers(0, 2000), st.integers(0, 40), st.text(max_size=6))
def test_any_damage_of_a_real_file(text: str, at: int, cut: int, put: str) -> None:
    at %= len(text)
    judged(text[:at] + put + text[at + cut :])


def test_the_real_files_are_accepted() -> None:
    assert len(FILES) > 40
    assert [judged(text) for text in FILES] == [""] * len(FILES)
