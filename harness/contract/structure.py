# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON <-> frozen dataclasses, strictly: the one structurer for everything that crosses a border.

A field's type may be bool, int, float, str, an enumeration of words, another dataclass, ``tuple[T, ...]``,
``tuple[A, B]``, ``Mapping[str, T]``, ``Mapping[int, T]`` (keys are decimal numbers in JSON) and ``T | None``.  A number
is finite, a string can be encoded, an object has each key once.  ``field(metadata={"key": "..."})`` names the key of a
field that is not called so in JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from harness.errors import UsageError

T = TypeVar("T")
_SHOWN = 60


class _Object(dict[str, Any]):
    """A JSON object; ``twice``: a key that stood in it more than once."""

    twice: str | None = None


def to_json(value: Any) -> str:
    """A dataclass as JSON text: a line for each of its fields, in their order.

    :raise ValueError: a float in it is not finite.
    """
    found = plain(value)
    if not isinstance(found, dict):
        return json.dumps(found, allow_nan=False)
    # Not indent=: with it the json package leaves its encoder in C, and the agent's CPU is emulated.
    lines = (f" {json.dumps(key)}: {json.dumps(inner, allow_nan=False)}" for key, inner in found.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def plain(value: Any) -> Any:
    """A dataclass (or what it may consist of) as dicts, lists and plain values."""
    if value is None or type(value) in (int, str, bool, float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: plain(getattr(value, name)) for name, key in _keys(type(value))}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def left_out(value: Any, raw: Any, path: str = "$") -> Iterator[str]:
    """The keys that JSON need not have to be this value, and does not have: their defaults stand for them.

    :param value: what ``structure`` made of ``raw``.
    """
    yield from _left_out(plain(value), raw, path)


def _left_out(full: Any, raw: Any, path: str) -> Iterator[str]:
    if isinstance(full, dict):
        for key, inner in full.items():
            if key not in raw:
                yield f"{path}.{_show_key(key)}"
            else:
                yield from _left_out(inner, raw[key], f"{path}.{_show_key(key)}")
    elif isinstance(full, list):
        for i, (inner, one) in enumerate(zip(full, raw, strict=True)):
            yield from _left_out(inner, one, f"{path}[{i}]")


def from_json(cls: type[T], text: str | bytes) -> T:
    """The inverse of to_json.

    :raise UsageError: the text is not UTF-8 or not JSON, or what it says is no ``cls``: an unknown, missing or repeated
        key, a wrong type, a number that is not finite; the message has the path of the key.  Nothing else is raised,
        whatever the text.
    """
    return structure(cls, parse(text))


def parse(text: str | bytes) -> Any:
    """JSON text as plain values.

    :raise UsageError: not UTF-8, not JSON, or nested too deeply to be read.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as exc:
        raise UsageError(f"not UTF-8: {exc}") from exc
    except ValueError as exc:
        raise UsageError(f"not JSON: {exc}") from exc
    except RecursionError:
        raise UsageError("not JSON that can be read: nested too deeply") from None


def structure(cls: type[T], raw: Any, path: str = "$") -> T:
    """Plain values, as ``parse`` gives them, as a ``cls``.

    :raise UsageError: see from_json.
    """
    return typing.cast(T, _any(cls, raw, path))


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        found.twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return found


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _any(cls: Any, raw: Any, path: str) -> Any:
    origin = typing.get_origin(cls)
    if origin is tuple:
        return _tuple(typing.get_args(cls), raw, path)
    if origin is Mapping:
        return _mapping(typing.get_args(cls), raw, path)
    if origin in (types.UnionType, typing.Union):
        if raw is None and type(None) in typing.get_args(cls):
            return None
        (one,) = (a for a in typing.get_args(cls) if a is not type(None))
        return _any(one, raw, path)
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        return _dataclass(cls, raw, path)
    if isinstance(cls, type) and issubclass(cls, StrEnum):
        return _word(cls, raw, path)
    return _value(cls, raw, path)


def _tuple(args: tuple[Any, ...], raw: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise UsageError(f"{path}: expected a list, got {_show(raw)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_any(args[0], r, f"{path}[{i}]") for i, r in enumerate(raw))
    if len(args) != len(raw):
        raise UsageError(f"{path}: expected {len(args)} elements, got {len(raw)}")
    return tuple(_any(a, r, f"{path}[{i}]") for i, (a, r) in enumerate(zip(args, raw, strict=True)))


def need_object(raw: Any, path: str = "$") -> dict[str, Any]:
    """A JSON object as it is. :raise UsageError: it is something else, or a key stands in it twice."""
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: expected an object, got {_show(raw)}")
    twice = getattr(raw, "twice", None)
    if twice is not None:
        raise UsageError(f"{path}.{_show_key(twice)}: stands twice")
    return raw


def _mapping(args: tuple[Any, ...], raw: Any, path: str) -> dict[Any, Any]:
    numbered = args[0] is int
    found: dict[Any, Any] = {}
    for key, value in need_object(raw, path).items():
        place = f"{path}.{_show_key(key)}"
        if numbered and not _is_decimal(key):
            raise UsageError(f"{place}: expected a decimal number as key")
        found[int(key) if numbered else _text(key, place)] = _any(args[1], value, place)
    return found


def _is_decimal(key: str) -> bool:
    """Written as Python writes an int, so that no two keys mean one number."""
    digits = key.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 40 and str(int(key)) == key


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, str, Any, bool], ...]:
    """(name, JSON key, type, whether it must be there) of each field."""
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return tuple(
        (f.name, _key(f), hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
    )


@functools.cache
def _keys(cls: type) -> tuple[tuple[str, str], ...]:
    """(name, JSON key) of each field."""
    return tuple((f.name, _key(f)) for f in dataclasses.fields(cls))


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))


def _dataclass(cls: type, raw: Any, path: str) -> Any:
    table = need_object(raw, path)
    fields = _fields(cls)
    known = {key for _, key, _, _ in fields}
    for key in table:
        if key not in known:
            raise UsageError(f"{path}.{_show_key(key)}: unknown key")
    values = {}
    for name, key, kind, needed in fields:
        if key in table:
            values[name] = _any(kind, table[key], f"{path}.{key}")
        elif needed:
            raise UsageError(f"{path}.{key}: missing")
    return cls(**values)


def _word(cls: type[StrEnum], raw: Any, path: str) -> StrEnum:
    for member in cls:
        if type(raw) is str and member.value == raw:
            return member
    raise UsageError(f"{path}: {_show(raw)} is not one of {', '.join(m.value for m in cls)}")


def _value(cls: Any, raw: Any, path: str) -> Any:
    if cls is str and type(raw) is str:
        return _text(raw, path)
    if cls in (bool, int) and type(raw) is cls:
        return raw
    if cls is float and type(raw) in (int, float):
        try:
            number = float(raw)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    if cls in (bool, int, float, str):
        raise UsageError(f"{path}: expected {cls.__name__}, got {_show(raw)}")
    raise UsageError(f"{path}: cannot read a {cls!r}")


def _text(raw: str, path: str) -> str:
    """JSON may escape half of a surrogate pair, which is no character and cannot be written anywhere."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path}: {_show(raw)} is no text: half of a surrogate pair") from None
    return raw


def _show_key(key: str) -> str:
    return key if key.isascii() and key.isprintable() and len(key) <= _SHOWN else _cut(ascii(key))


def _show(raw: Any) -> str:
    if isinstance(raw, dict | list):
        return "an object" if isinstance(raw, dict) else "a list"
    return _cut(ascii(raw) if isinstance(raw, str) else repr(raw))


def _cut(shown: str) -> str:
    """What has been escaped already: a character may have become ten."""
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
