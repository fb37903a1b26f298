# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario -> TOML text, the inverse of load: what equals its default is left out."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.scenario.schema import Scenario

_TABLES = ("guest", "apf", "memory", "swap", "kernel_params", "kernel_params_at_go")
_BARE = re.compile(r"^[A-Za-z0-9_-]+\Z")


def dump(scenario: Scenario) -> str:
    """The file from which load_text() makes exactly this scenario."""
    return "\n".join(_lines(scenario)) + "\n"


def _lines(scenario: Scenario) -> Iterator[str]:
    said = _said(scenario)
    tables = {key: said.pop(key) for key in _TABLES if key in said}
    pages, steps, timed = (said.pop(key, ()) for key in ("pages", "steps", "timed"))
    yield from _entries(said)
    for key, value in tables.items():
        entries = dict(_entries_of(value))
        if entries:
            yield from ("", f"[{key}]", *_entries(entries))
    for name, value in dict(pages).items():
        yield from ("", f"[pages.{_key(name)}]", *_entries(dict(_entries_of(value))))
    for step in steps:
        yield from ("", "[[steps]]", *_entries(_said(step)))
    for action in timed:
        yield from ("", "[[timed]]", *_entries(_said(action)))


def _said(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that say something else than their default."""
    found = {}
    for field in dataclasses.fields(value):
        now = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if now != default:
            found[field.name] = now
    return found


def _entries_of(value: Any) -> Iterator[tuple[str, Any]]:
    yield from (value.items() if isinstance(value, Mapping) else _said(value).items())


def _entries(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_key(key)} = {_value(value)}" for key, value in table.items())


def _key(key: str) -> str:
    return key if _BARE.match(key) else _text(key)


def _text(text: str) -> str:
    """A basic string.  JSON's escapes are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case tuple():
            return f"[{', '.join(_value(each) for each in value)}]"
        case _:
            inner = ", ".join(_entries(dict(_entries_of(value))))
            return f"{{ {inner} }}"
