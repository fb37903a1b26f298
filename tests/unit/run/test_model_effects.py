# SPDX-License-Identifier: GPL-2.0-or-later
"""Which difference between two models a plan shows."""

from __future__ import annotations

from dataclasses import replace

from harness.model.kernels import find_kernel
from harness.run.model_effects import differing, shown_by
from tests.unit.scenarios import plan_of as plan

OLD, NEW = find_kernel("nowait-6.1"), find_kernel("nowait-6.12")


def test_the_field_that_decides_is_named_alone() -> None:
    assert shown_by(plan("S23"), OLD, NEW) == ("do_poll",)
    assert shown_by(plan("S23"), NEW, OLD) == ("do_poll",)


def test_a_plan_that_cannot_tell_them_apart_names_nothing() -> None:
    assert shown_by(plan("S20"), OLD, OLD) == ()
    renamed = replace(OLD, name="other", release=(6, 1, 193))
    assert differing(OLD, renamed) == () and shown_by(plan("S23"), OLD, renamed) == ()


def test_differences_are_fields_of_behaviour() -> None:
    found = differing(OLD, NEW)
    assert {"do_poll", "zero_map"} <= set(found) and not {"name", "release"} & set(found)
    assert differing(NEW, OLD) == found
