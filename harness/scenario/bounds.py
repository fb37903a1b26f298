# SPDX-License-Identifier: GPL-2.0-or-later
"""How large anything of a scenario may be, checked before anything is built from it.

Two kinds: of the text (so that reading it takes no time and no stack), and of single values (so that what is accepted
fits the fields of the guest's program, and ends).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from harness.contract.probe_abi import MAX_ITEMS
from harness.errors import ScenarioError

MAX_TEXT = 256 << 10  # characters of a file
MAX_LINE = 4096  # of a line: tomllib's time grows with the square of a dotted key's parts
MAX_DEPTH = 12  # tables and lists in each other; the schema needs 5
MAX_NAME = 100
MAX_TITLE = 200
MAX_RULE = 20  # what the reads of a gated device wait for, such as "repeated:3"
MAX_PROSE = 4000
MAX_TAGS = 32
MAX_SETS = 64
MAX_COMBINATIONS = 128  # scenarios that one [matrix] may make
MAX_PAGES = 65_536  # of all sets together: each is put into its state and proved one by one
MAX_HOST_STEPS = 64  # in one step or [[timed]] entry
MAX_TIMED = 64
MAX_SYNCS = 10_000  # reads of all state in one host step, each about a millisecond
POOL_PAGES = (1024 - 17) << 8  # 4 KiB pages from 16 MiB up to the largest guest's last MiB
MAX_U32 = (1 << 32) - 1
MAX_U64 = (1 << 64) - 1
MAX_GPA = 1 << 52  # x86's architectural limit of physical addresses
MAX_DEADLINE_S = 3600
MAX_REPEATS = 10_000
MAX_DELAY_MS = 60_000
MAX_SWAP_MIB = 3072  # the virtual host's disk has 4096 MiB
MIN_SWAP_MIB = 16


def parse(name: str, text: str) -> dict[str, Any]:
    """The table of a TOML text that is not too large in any way.

    :raise ScenarioError: it is, or it is not TOML; the message has the file's name.
    """
    if len(text) > MAX_TEXT:
        raise ScenarioError(f"{name}: {len(text)} characters; a scenario has at most {MAX_TEXT}")
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise ScenarioError(f"{name}: line {number} has {len(line)} characters, at most {MAX_LINE} are allowed")
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(f"{name}: lists or tables are nested too deeply, at most {MAX_DEPTH} are allowed") from None
    except ValueError as exc:  # TOMLDecodeError, and int() of too many digits
        raise ScenarioError(f"{name}: not TOML: {exc}") from exc
    problem = next(_too_deep(raw), "") or next(_too_many(raw), "")
    if problem:
        raise ScenarioError(f"{name}: {problem}")
    return raw


def _too_deep(raw: dict[str, Any]) -> Iterator[str]:
    """Without recursion: the depth is what is not yet known to be small."""
    open_nodes: list[tuple[str, Any, int]] = [("$", raw, 1)]
    while open_nodes:
        path, node, depth = open_nodes.pop()
        if depth > MAX_DEPTH:
            yield f"{path[:200]}: nested too deeply, at most {MAX_DEPTH} tables and lists in each other are allowed"
            return
        if isinstance(node, dict):
            open_nodes += [(f"{path}.{k}", v, depth + 1) for k, v in node.items() if isinstance(v, dict | list)]
        elif isinstance(node, list):
            open_nodes += [(f"{path}[{i}]", v, depth + 1) for i, v in enumerate(node) if isinstance(v, dict | list)]


def _too_many(raw: dict[str, Any]) -> Iterator[str]:
    for key, most in (("steps", MAX_ITEMS), ("timed", MAX_TIMED), ("tags", MAX_TAGS), ("pages", MAX_SETS)):
        value = raw.get(key)
        if isinstance(value, list | dict) and len(value) > most:
            yield f"$.{key}: {len(value)} entries, at most {most} are allowed"
    axes = raw.get("matrix")
    count = 1
    for values in axes.values() if isinstance(axes, dict) else ():
        count *= len(values) if isinstance(values, list) else 1
        if count > MAX_COMBINATIONS:
            yield f"$.matrix: more than {MAX_COMBINATIONS} combinations"
            return


def number(key: str, value: int, low: int, high: int) -> Iterator[str]:
    """A problem as "key: text" when the value is out of its range."""
    if not low <= value <= high:
        shown = str(value) if abs(value) <= MAX_U64 else f"a number of {value.bit_length()} bits"
        yield f"{key}: {shown} is not between {low} and {high}"


def prose(key: str, value: str, most: int, *, lines: bool = False) -> Iterator[str]:
    """A problem when the text is too long or holds what cannot be printed as it is (controls, direction overrides)."""
    if len(value) > most:
        yield f"{key}: {len(value)} characters, at most {most} are allowed"
    bad = next((c for c in value if not c.isprintable() and not (lines and c in "\n\t")), "")
    if bad:
        yield f"{key}: the character {ascii(bad)[1:-1]} cannot be printed"
