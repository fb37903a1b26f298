# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML text -> Scenario, strictly: all problems of a file at once, each with file and key path.

Reading the files is the caller's affair (this package does no I/O): it passes names and texts.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin

from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

from harness.contract import plan
from harness.errors import ScenarioError
from harness.scenario import schema
from harness.scenario.check import check
from harness.scenario.matrix import expand

T = TypeVar("T")


def _strict(kind: type) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__} {value!r}")
        return value

    return hook


def _member(value: Any, choice: Any) -> Any:
    try:
        return choice(value)
    except ValueError:
        raise ValueError(f"{value!r} is not one of {', '.join(m.value for m in choice)}") from None


def _either(value: Any, _: Any) -> Any:
    if type(value) not in (int, str):
        raise TypeError(f"expected a number or a string, got {value!r}")
    return value


def _names(value: Any, _: Any) -> Any:
    if type(value) is str:
        return value
    if isinstance(value, list) and all(type(v) is str for v in value):
        return tuple(value)
    raise TypeError(f"expected a page name or a list of page names, got {value!r}")


def _is_listing(cls: Any) -> bool:
    origin: Any = get_origin(cls)
    return origin is tuple and len(get_args(cls)) == 2


def _converter() -> Converter:
    conv = Converter(forbid_extra_keys=True)
    for kind in (int, str, bool, float):
        conv.register_structure_hook(kind, _strict(kind))
    words = (plan.Access, plan.Backing, plan.GuestKind, plan.HostWord, plan.PageStart, plan.ReadOrder, plan.SwapKind)
    for choice in words:
        conv.register_structure_hook(choice, _member)  # the hook for str would catch the StrEnums otherwise
    conv.register_structure_hook_func(lambda t: t == int | str, _either)
    conv.register_structure_hook_func(lambda t: t == str | tuple[str, ...], _names)

    def listed(cls: Any) -> Any:
        elem = get_args(cls)[0]

        def hook(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise TypeError(f"expected a list, got {type(value).__name__} {value!r}")
            listing: Any = types.GenericAlias(list, (elem,))
            return tuple(conv.structure(value, listing))

        return hook

    conv.register_structure_hook_factory(_is_listing, listed)
    for cls in (schema.GuestSpec, schema.PageSet, schema.HostStep, schema.TimedStep, schema.Step, schema.Scenario):
        conv.register_structure_hook(
            cls,
            make_dict_structure_fn(cls, conv, _cattrs_forbid_extra_keys=True),
        )
    return conv


_CONVERTER = _converter()


def load_text(name: str, text: str) -> tuple[schema.Scenario, ...]:
    """The scenarios of one file: one, or several when it has a [matrix].

    :param name: the file's name, for messages only.
    :raise ScenarioError: not TOML, unknown keys, wrong types, contradictions: all of them, with key paths.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ScenarioError(f"{name}: not TOML: {exc}") from exc
    found: list[schema.Scenario] = []
    problems: list[str] = []
    for table in expand(name, raw):
        try:
            scenario: schema.Scenario = _CONVERTER.structure(table, schema.Scenario)
        except Exception as exc:  # noqa: BLE001 - cattrs raises groups of many kinds; transform_error names each
            problems += [f"{name}: {line}" for line in _explain(exc)]
            break
        problems += [f"{name}: {p}" for p in check(scenario)]
        found.append(scenario)
    if problems:
        raise ScenarioError("\n".join(dict.fromkeys(problems)), hint="docs/writing-scenarios.md lists every key")
    return tuple(found)


def load_all(files: Iterable[tuple[str, str]]) -> tuple[schema.Scenario, ...]:
    """All scenarios of several files, ordered as given.

    :raise ScenarioError: the problems of all files together, and two scenarios with one id.
    """
    found: list[schema.Scenario] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for name, text in files:
        try:
            loaded = load_text(name, text)
        except ScenarioError as exc:
            problems.append(exc.message)
            continue
        for scenario in loaded:
            if scenario.id in seen:
                problems.append(f"{name}: $.id: {scenario.id!r} is also the id of {seen[scenario.id]}")
            seen[scenario.id] = name
            found.append(scenario)
    if problems:
        raise ScenarioError("\n".join(problems), hint="docs/writing-scenarios.md lists every key")
    return tuple(found)


def _explain(exc: BaseException) -> list[str]:
    def one(error: BaseException, hint: type | None) -> str:
        if isinstance(error, KeyError):
            return f"required key {error.args[0]!r} is missing"
        extra = getattr(error, "extra_fields", None)
        if extra:
            return "unknown key" + ("s " if len(extra) > 1 else " ") + ", ".join(sorted(map(repr, extra)))
        return str(error)

    return [line.replace(" @ $", " at $") for line in transform_error(exc, format_exception=one)]
