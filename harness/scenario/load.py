# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML text -> Scenario, strictly: all problems of a file at once, each with file and key path.

Reading the files is the caller's affair (this package does no I/O): it passes names and texts.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import re
import types
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin

from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

from harness.contract import plan
from harness.errors import ScenarioError
from harness.scenario import bounds, schema
from harness.scenario.bounds import MAX_NAME
from harness.scenario.check import check
from harness.scenario.matrix import expand
from harness.scenario.step_keys import says_nothing

T = TypeVar("T")


def _shown(value: Any) -> str:
    """A value in a message: printable and short, whatever it is."""
    try:
        text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    except ValueError:  # a number of more digits than Python converts
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


def _strict(kind: type) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__} {_shown(value)}")
        return value

    return hook


def _member(value: Any, choice: Any) -> Any:
    try:
        return choice(value)
    except ValueError:
        raise ValueError(f"{_shown(value)} is not one of {', '.join(m.value for m in choice)}") from None


def _either(value: Any, _: Any) -> Any:
    if type(value) not in (int, str):
        raise TypeError(f"expected a number or a string, got {_shown(value)}")
    return value


def _names(value: Any, _: Any) -> Any:
    if type(value) is str:
        return value
    if isinstance(value, list) and all(type(v) is str for v in value):
        return tuple(value)
    raise TypeError(f"expected a page name or a list of page names, got {_shown(value)}")


def _is_listing(cls: Any) -> bool:
    origin: Any = get_origin(cls)
    return origin is tuple and len(get_args(cls)) == 2


def _converter() -> Converter:
    conv = Converter(forbid_extra_keys=True)
    for kind in (int, str, bool, float):
        conv.register_structure_hook(kind, _strict(kind))
    words = (
        plan.Access, plan.Backing, plan.By, plan.GuestKind, plan.HostWord, plan.PageStart, plan.ReadOrder,
        plan.SwapKind,
    )  # fmt: skip
    for choice in words:
        conv.register_structure_hook(choice, _member)  # the hook for str would catch the StrEnums otherwise
    conv.register_structure_hook_func(lambda t: t == int | str, _either)
    conv.register_structure_hook_func(lambda t: t == str | tuple[str, ...], _names)

    def listed(cls: Any) -> Any:
        elem = get_args(cls)[0]

        def hook(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise TypeError(f"expected a list, got {type(value).__name__} {_shown(value)}")
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
    raw = bounds.parse(name, text)
    found: list[schema.Scenario] = []
    problems: list[str] = []
    for table in expand(name, raw):
        scenario, wrong = _structure(table)
        problems += (f"{name}: {line}" for line in wrong)
        if scenario is not None:
            found.append(scenario)
    if problems:
        told = list(dict.fromkeys(problems))
        if len(told) > _MOST_PROBLEMS:
            told = [*told[:_MOST_PROBLEMS], f"{name}: and {len(told) - _MOST_PROBLEMS} problems more"]
        raise ScenarioError("\n".join(told), hint="docs/writing-scenarios.md lists every key")
    return tuple(found)


_MOST_PROBLEMS = 50
_PATH = re.compile(r" (?:at|@) (\$\S*)$")


def _structure(table: dict[str, Any]) -> tuple[schema.Scenario | None, list[str]]:
    """The scenario, or all that is wrong with it: wrong keys and types, and what contradicts itself in the rest.

    The second kind is looked for in a copy from which the wrong keys were taken out, and what such a key may have
    caused is left out.
    """
    table = _with_kind(table)
    wrong = list(says_nothing(table))
    try:
        scenario: schema.Scenario = _CONVERTER.structure(table, schema.Scenario)
    except Exception as exc:  # noqa: BLE001 - cattrs raises groups of many kinds; transform_error names each
        wrong += _explain(exc)
    if not wrong:
        return scenario, list(check(scenario))
    rest, taken = copy.deepcopy(table), []
    for key in ("id", "title"):
        if type(rest.get(key)) is not str:
            rest[key] = "x"
            taken.append(f"$.{key}")
    for line in wrong:
        path = _PATH.search(line)
        if path is not None and path[1] != "$":
            taken.append(_take_out(rest, path[1]))
        elif path is not None:
            for key in set(rest) - {f.name for f in dataclasses.fields(schema.Scenario)}:
                del rest[key]
    try:
        scenario = _CONVERTER.structure(rest, schema.Scenario)
    except Exception:  # noqa: BLE001 - as above: enough is known to be wrong
        return None, wrong
    return None, wrong + [line for line in check(scenario) if not _follows(line, taken)]


def _with_kind(table: dict[str, Any]) -> dict[str, Any]:
    """Who says how long a read takes, and not what it waits for, means the device that delays."""
    swap = table.get("swap")
    if not isinstance(swap, dict) or "delay_ms" not in swap or swap.keys() & {"kind", "release"}:
        return table
    return {**table, "swap": {**swap, "kind": plan.SwapKind.DELAY.value}}


def _take_out(table: dict[str, Any], path: str) -> str:
    """Remove the entry of ``table`` in which ``path`` lies; what was removed, as a path.

    Elements of lists are replaced by what says nothing, so that the others keep their numbers.
    """
    top, _, index = path.removeprefix("$.").partition(".")[0].partition("[")
    if top in ("steps", "timed") and index:
        number = int(index.partition("]")[0])
        table[top][number] = {"pause": True} if top == "steps" else {"at_ms": 0, "host": []}
        return f"$.{top}[{number}]"
    table.pop(top, None)
    return f"$.{top}"


def _follows(line: str, taken: Iterable[str]) -> bool:
    """Whether a contradiction may only be there because something was taken out."""
    for gone in taken:
        if line.startswith(gone):
            return True
        if gone == "$.steps" and line.startswith("$.steps:"):
            return True
        if gone in ("$.pages", "$.guest", "$.memory", "$.swap", "$.deadline_s"):
            return True
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A file that no scenario can be had from.

    :ivar file: its name, as it was given.
    :ivar id: the id that it gives itself; where that cannot be read, its name without folder and ending.
    :ivar tags: those that it gives itself, as far as they can be read.
    :ivar problems: all that is wrong, one line each, with the file's name.
    """

    file: str
    id: str
    problems: str
    tags: tuple[str, ...] = ()


def load_each(files: Iterable[tuple[str, str]]) -> tuple[tuple[schema.Scenario, ...], tuple[Refusal, ...]]:
    """The scenarios of those files that are good, and the files that are not, both ordered as given.

    Of two files with one id the second is refused, whole.
    """
    found: list[schema.Scenario] = []
    refused: list[Refusal] = []
    seen: dict[str, str] = {}
    for name, text in files:
        try:
            loaded = load_text(name, text)
        except ScenarioError as exc:
            refused.append(refusal(name, exc.message, text))
            continue
        twice = [
            f"{name}: $.id: {s.id!r} is also the id of {seen.get(s.id, name)}"
            for n, s in enumerate(loaded)
            if s.id in seen or s.id in {other.id for other in loaded[:n]}
        ]
        if twice:
            refused.append(refusal(name, "\n".join(twice), text))
            continue
        seen.update((s.id, name) for s in loaded)
        found += loaded
    return tuple(found), tuple(refused)


def refusal(name: str, problems: str, text: str = "") -> Refusal:
    """Of a file with this text, as far as that can be read."""
    try:
        raw = bounds.parse(name, text)
    except ScenarioError:
        raw = {}
    own, tags = raw.get("id"), raw.get("tags")
    stem = name.rpartition("/")[2].removesuffix(".toml")
    return Refusal(
        name,
        own if isinstance(own, str) and own else stem,
        problems,
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
    )


def load_all(files: Iterable[tuple[str, str]]) -> tuple[schema.Scenario, ...]:
    """All scenarios of several files, ordered as given.

    :raise ScenarioError: the problems of all files together, and two scenarios with one id.
    """
    found, refused = load_each(files)
    if refused:
        raise refused_error(refused)
    return found


def refused_error(refused: Iterable[Refusal]) -> ScenarioError:
    """What to raise about files that were refused."""
    return ScenarioError("\n".join(r.problems for r in refused), hint="docs/writing-scenarios.md lists every key")


def _near(error: Any) -> str:
    """The keys of the table that look like those that it does not have."""
    known = [f.name for f in dataclasses.fields(error.cl)] if dataclasses.is_dataclass(error.cl) else []
    found = [
        near
        for key in sorted(error.extra_fields)
        for near in difflib.get_close_matches(str(key)[:MAX_NAME], known, n=1)
    ]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _explain(exc: BaseException) -> list[str]:
    def one(error: BaseException, hint: type | None) -> str:
        if isinstance(error, KeyError):
            return f"required key {error.args[0]!r} is missing"
        extra = getattr(error, "extra_fields", None)
        if extra:
            return (
                "unknown key" + ("s " if len(extra) > 1 else " ") + ", ".join(sorted(map(repr, extra))) + _near(error)
            )
        return str(error)

    return [line.replace(" @ $", " at $") for line in transform_error(exc, format_exception=one)]
