# SPDX-License-Identifier: GPL-2.0-or-later
"""Points are found, mean what they say, and change nothing unless one is selected: C compiled and run."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.kernels.mutation_points import (
    FIRST,
    Point,
    PointKind,
    from_json,
    reached,
    to_json,
)
from harness.artifacts.kernels.mutation_targets import Targets, load_targets
from harness.artifacts.kernels.mutations import apply, mutate
from harness.errors import BuildFailed, CatalogError
from tests.unit.waiting import HANG_S

SOURCE = b"""
#define FOLL_WRITE 4
#define unlikely(x) (x)
struct vcpu { int queued; bool halted; };
static int last_flags;
static int get_page(int flags) { last_flags = flags; return 1; }
bool setup(struct vcpu *vcpu, int limit)
{
	int got;
	bool full = vcpu->queued >= limit;

	if (unlikely(!vcpu || full))
		return false;
	got = get_page(FOLL_WRITE);
	while (vcpu->queued < limit && got)
		vcpu->queued++;
	if (got)
		vcpu->halted = true;
	else
		vcpu->halted = false;
	return true;
}
int other(void) { if (last_flags) return 3; return 4; }
"""
MAIN = """
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
static unsigned apf_mutant;
static bool apf_point(unsigned n) { return apf_mutant == n; }
%s
int main(int argc, char **argv)
{
	struct vcpu vcpu = { 1, false };
	apf_mutant = atoi(argv[1]);
	bool said = setup(&vcpu, 3);
	printf("%%d queued=%%d halted=%%d flags=%%d\\n", said, vcpu.queued, vcpu.halted, last_flags);
	return 0;
}
"""
WHOLE = Targets(("*.c",), {"setup": ""})
RIGHT = "1 queued=3 halted=1 flags=4"


def names(points: tuple[Point, ...]) -> list[str]:
    return [f"{p.text} {p.kind}" for p in points]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Point, ...]]:
    folder = tmp_path_factory.mktemp("c")
    changed, points = mutate(SOURCE, "a.c", WHOLE, FIRST)
    (folder / "a.c").write_text(MAIN % changed.decode())
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", folder / "a", folder / "a.c"], check=True)
    return folder / "a", points


def run(program: Path, mutant: int) -> str:
    return subprocess.run(
        [program, str(mutant)], capture_output=True, text=True, check=True, timeout=HANG_S
    ).stdout.strip()


def test_without_a_selected_point_the_code_is_what_it_was(program: tuple[Path, tuple[Point, ...]]) -> None:
    assert run(program[0], 0) == RIGHT


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("full = vcpu->queued >= limit negated", "0 queued=1 halted=0 flags=0"),
        ("!vcpu negated", "0 queued=1 halted=0 flags=0"),
        ("full negated", "0 queued=1 halted=0 flags=0"),
        ("FOLL_WRITE of get_page(FOLL_WRITE) zero", "1 queued=3 halted=1 flags=0"),
        ("vcpu->queued < limit && got never entered", "1 queued=1 halted=1 flags=4"),
        ("vcpu->queued++; left out", None),  # for ever
        ("(got) negated", "1 queued=3 halted=0 flags=4"),
        ("vcpu->halted = true; left out", "1 queued=3 halted=0 flags=4"),
        ("vcpu->halted = true negated", "1 queued=3 halted=0 flags=4"),
    ],
)
def test_each_point_does_wrong_what_its_name_says(
    program: tuple[Path, tuple[Point, ...]], name: str, outcome: str | None
) -> None:
    path, points = program
    found = [p for p in points if f"{p.text} {p.kind}" == name]
    assert found, names(points)
    if outcome is None:
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([path, str(found[0].number)], capture_output=True, timeout=0.3, check=False)
    else:
        assert run(path, found[0].number) == outcome


def test_numbers_are_one_after_the_other_and_lines_those_of_the_source(
    program: tuple[Path, tuple[Point, ...]],
) -> None:
    points = program[1]
    assert [p.number for p in points] == list(range(FIRST, FIRST + len(points)))
    lines = SOURCE.decode().splitlines()
    for point in points:
        assert point.text.split()[0].strip("()") in lines[point.line - 1], point


def test_only_what_matches_of_a_function_that_does_more() -> None:
    _, points = mutate(SOURCE, "a.c", Targets((), {"setup": "halted"}), FIRST)
    assert {p.text for p in points} == {
        "vcpu->halted = true;",
        "vcpu->halted = true",
        "vcpu->halted = false;",
        "vcpu->halted = false",
    }


def test_a_header_a_definition_and_the_list_come_with_them(tmp_path: Path) -> None:
    (tmp_path / "virt/kvm").mkdir(parents=True)
    (tmp_path / "include/linux").mkdir(parents=True)
    (tmp_path / "virt/kvm/async_pf.c").write_bytes(SOURCE)
    points = apply(tmp_path, Targets(("virt/kvm/*.c",), {"setup": "", "absent": ""}))
    text = (tmp_path / "virt/kvm/async_pf.c").read_text()
    assert text.startswith("#include <linux/kvm_apf_point.h>\n") and "module_param(apf_mutant" in text
    assert f"#define APF_POINTS {len(points)}" in (tmp_path / "include/linux/kvm_apf_point.h").read_text()
    assert from_json(to_json(points)) == points


def test_a_tree_without_any_of_the_functions_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    with pytest.raises(BuildFailed, match="none of the functions"):
        apply(tmp_path, Targets(("*.c",), {"absent": ""}))


def test_why_nobody_can_notice_or_no_guest_here_does(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        'files = []\n[functions]\nf = ""\n[rules]\nf = ["D05"]\n[points]\n"f: return 0 .*" = ["item:gp"]\n'
        '[equivalent]\n"f: free.*" = "a leak"\n[out-of-reach]\n"f: nested.*" = "needs a nested guest"\n'
    )
    told = load_targets(path)
    zero, free, nested = (
        Point(n, "a.c", "f", n, PointKind.SKIP, t) for n, t in enumerate(("return 0", "free()", "nested"))
    )
    assert (told.rules_of(zero), told.rules_of(free)) == (("item:gp",), ("D05",))
    second = replace(told, equivalent={f"{re.escape(free.name)} #2": "the second only"})
    assert [second.why_equivalent(free, nth) for nth in (1, 2, 3)] == ["", "the second only", ""]
    assert [(told.why_equivalent(p), told.why_out_of_reach(p)) for p in (zero, free, nested)] == [
        ("", ""),
        ("a leak", ""),
        ("", "needs a nested guest"),
    ]


def test_the_lists_of_this_repository_name_points_that_there_are() -> None:
    """Without a source tree: each name begins with a function that is mutated."""
    told = load_targets(layout.KERNELS / "mutate.toml")
    for name in (*told.points, *told.equivalent, *told.out_of_reach):
        assert any(re.match(name.partition(":")[0], function) for function in told.functions), name
    assert set(told.rules) == set(told.functions)


def test_reached_points_are_read_from_hexadecimal_digits() -> None:
    assert reached("81\n") == {FIRST + 3, FIRST + 4}
    assert reached("\n") == frozenset()


def test_a_broken_list_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "mutate.toml"
    for text in ("files = 3", "[functions]\na = '('\n", "nonsense"):
        path.write_text(text)
        with pytest.raises(CatalogError, match=r"mutate\.toml"):
            load_targets(path)


def test_our_own_list_can_be_read_and_every_kind_of_point_is_said_in_words() -> None:
    assert load_targets(layout.KERNELS / "mutate.toml").functions["kvm_setup_async_pf"] == ""
    assert len({kind.value for kind in PointKind}) == len(PointKind)
