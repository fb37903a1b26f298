# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the text is, the structurer gives a value of the type or its documented error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.structure import from_json, parse, plain, to_json
from harness.contract.words import Access, EndStatus
from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Inner:
    word: EndStatus
    number: float = 0.0


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    yes: bool
    count: int
    inner: Inner
    maybe: int | None = None
    several: tuple[Inner, ...] = ()
    pair: tuple[str, int] = ("", 0)
    by_name: Mapping[str, int] = field(default_factory=dict)
    by_number: Mapping[int, Inner | None] = field(default_factory=dict)
    access: Access = Access.READ
    with_space: int = field(default=0, metadata={"key": "with space"})


numbers = st.integers(-(2**70), 2**70)
inners = st.builds(Inner, st.sampled_from(EndStatus), st.floats(allow_nan=False, allow_infinity=False))
outers = st.builds(
    Outer, st.text(), st.booleans(), numbers, inners, st.none() | numbers, st.lists(inners).map(tuple),
    st.tuples(st.text(), numbers), st.dictionaries(st.text(), numbers),
    st.dictionaries(numbers, st.none() | inners), st.sampled_from(Access), numbers,
)  # fmt: skip
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(st.characters()), inside),
    max_leaves=12,
)
VALID = {"name": "n", "yes": True, "count": 1, "inner": {"word": "done"}}


@given(outers)
def test_round_trip(value: Outer) -> None:
    assert from_json(Outer, to_json(value)) == value
    assert from_json(Outer, to_json(value).encode()) == value


@given(values)
def test_any_json_is_a_value_or_the_documented_error(value: Any) -> None:
    try:
        found = from_json(Outer, json.dumps(value))
    except UsageError as exc:
        exc.message.encode()
    else:
        assert isinstance(found, Outer)


@given(st.sampled_from([*Outer.__dataclass_fields__, "with space", "surprise"]), values)
def test_one_wrong_key_is_named(key: str, value: Any) -> None:
    try:
        found = from_json(Outer, json.dumps({**VALID, key: value}))
    except UsageError as exc:
        assert exc.message.startswith(("$.", "not JSON")) and len(exc.message) < 300
        exc.message.encode()
    else:
        assert from_json(Outer, to_json(found)) == found


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(UsageError):
        from_json(Outer, data)


@given(st.integers(0, 400), st.binary(max_size=3))
def test_damaged_text(at: int, put: bytes) -> None:
    text = to_json(Outer("n", True, 1, Inner(EndStatus.DONE), by_name={"x": 1}, by_number={7: None})).encode()
    try:
        from_json(Outer, text[:at] + put + text[at + 1 :])
    except UsageError as exc:
        assert exc.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "not UTF-8"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "not JSON"),
        ('{"inner": NaN}', "NaN is no number"),
        ('{"inner": -Infinity}', "Infinity is no number"),
        ('{"name": "n", "yes": true, "count": 1, "inner": {"word": "done", "number": 1e999}}',
         r"\$\.inner\.number: expected float, got inf"),
        ('{"name": "n", "yes": true, "count": 1, "inner": {"word": "done", "number": 1' + "0" * 400 + "}}",
         r"\$\.inner\.number: expected float"),
        ('{"name": "n", "name": "m"}', r"\$\.name: stands twice"),
        ('{"name": "n", "yes": true, "count": 1, "inner": {"word": "done", "word": "done"}}',
         r"\$\.inner\.word: stands twice"),
        ('{"name": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\ud800": 1}', r"\$\.'\\ud800': unknown key"),
        ("[]", r"\$: expected an object, got a list"),
        ('{"name": [[[]]]}', r"\$\.name: expected str, got a list"),
        (
            '{"name": "n", "yes": true, "count": 1, "inner": {"word": ["done"]}}',
            r"\$\.inner\.word: a list is not one of",
        ),
        ('{"name": "n", "yes": 1}', r"\$\.yes: expected bool, got 1"),
        ('{"name": "n", "yes": true, "count": true}', r"\$\.count: expected int, got True"),
        ('{"name": "n", "yes": true, "count": 1.0}', r"\$\.count: expected int, got 1\.0"),
    ],
)  # fmt: skip
def test_named_damage(text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_json(Outer, text)


@pytest.mark.parametrize("key", ["x", "1.0", " 1", "01", "-0", "+1", "1" * 5000, "١", ""])
def test_a_number_as_key_is_written_in_one_way(key: str) -> None:
    with pytest.raises(UsageError, match="expected a decimal number as key"):
        from_json(Outer, json.dumps({**VALID, "by_number": {key: None}}))


def test_nothing_infinite_is_written() -> None:
    with pytest.raises(ValueError):
        to_json(Inner(EndStatus.DONE, float("inf")))


def test_plain_values_are_what_json_gives_back() -> None:
    value = Outer("n", True, 1, Inner(EndStatus.ERROR), with_space=3)
    assert parse(to_json(value)) == plain(value)
    assert plain(value)["with space"] == 3
