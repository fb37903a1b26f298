# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel functions that the model cites, as they stand in the trees that were read: kernels/citations.json.

By release and by "file:function" a fingerprint of the function's text without comments and spacing.  Those of the walk
are looked up in the file that the model names; those of the protocol (kernels/mutate.toml), which releases move between
files, by their name alone, and of a function that does more only what has to do with it.  Pointed at another tree, the
same functions are looked up there, and those that are gone or read differently are named.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.command import command
from harness.artifacts.debian.deb import extract
from harness.artifacts.kernels.mutation_targets import load_targets
from harness.errors import BuildFailed, CatalogError, ModelError
from harness.model.kernel_changes import READ_RELEASES
from harness.model.kernels import Variant, kernel_for
from harness.model.walk.gup import cited_functions

DATA = layout.KERNELS / "citations.json"
PROTOCOL_FILES = (
    "virt/kvm/async_pf.c", "virt/kvm/kvm_main.c", "arch/x86/kvm/x86.c", "arch/x86/kvm/msrs.c", "arch/x86/kvm/regs.c",
    "arch/x86/kvm/x86.h", "arch/x86/kvm/lapic.c", "arch/x86/kvm/mmu/mmu.c", "arch/x86/kvm/mmu/mmu_internal.h",
)  # fmt: skip
"""Where the functions of the protocol are looked for, in this order."""
LEFT = "citations.json"
"""In the folder of a kernel that was built here: the fingerprints of its own tree, patches included."""
Source = Callable[[str], str]
"""The text of a file of a kernel tree; empty where there is none."""
Fingerprints = Mapping[str, str]
"""By "file:function"; empty: there is no such function."""

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'')


def function_text(source: str, name: str) -> str:
    """The definition of a C function, from its type to its last brace; empty: there is none.

    Comments are left out and runs of white space are one space, so that only what the compiler reads counts.
    """
    text, blank = _without_comments(source)
    for found in re.finditer(rf"^(?:[A-Za-z_][^\n;{{}}()=#]*[\s*])?{re.escape(name)}\(", blank, re.MULTILINE):
        after = _closing(blank, found.end() - 1, "()")
        body = re.compile(r"\s*(?:__\w+(?:\([^()]*\))?\s*)*\{").match(blank, after)
        if body is not None:
            return " ".join(text[found.start() : _closing(blank, body.end() - 1, "{}")].split())
    return ""


@functools.lru_cache(maxsize=32)
def _without_comments(source: str) -> tuple[str, str]:
    """A file's text without comments, and the same with blanks for strings, whose braces do not count."""
    text = _COMMENT.sub(" ", source)
    return text, _STRING.sub(lambda m: " " * len(m[0]), text)


def _closing(text: str, at: int, pair: str) -> int:
    """The position after the bracket that closes the one at ``at``; the end of the text if none does."""
    depth = 0
    for position in range(at, len(text)):
        depth += (text[position] == pair[0]) - (text[position] == pair[1])
        if depth == 0:
            return position + 1
    return len(text)


def fingerprints(source: Source, release: str) -> Fingerprints:
    """Of every function that the model cites for a kernel of this release, read from its tree; empty: not there."""
    cited = sorted(cited_functions(kernel_for(Variant.NOWAIT, release)))
    found = {f"{file}:{name}": _fingerprint(function_text(source(file), name)) for file, name in cited}
    files = [source(file) for file in PROTOCOL_FILES]
    for name, only in protocol_functions().items():
        if name not in {walked for _, walked in cited}:
            texts = (function_text(text, name) for text in files)
            found[name] = _fingerprint(_about(next(filter(None, texts), ""), only))
    return found


def protocol_functions() -> dict[str, str]:
    """The functions of the protocol: "" for a whole one, else a regular expression for what of it counts."""
    return dict(load_targets(layout.KERNELS / "mutate.toml").functions)


def _about(text: str, only: str) -> str:
    """The statements of a function that match, all of them if nothing is asked for."""
    return text if not only else ";".join(part for part in re.split(r"[;{}]", text) if re.search(only, part))


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def known(path: Path = DATA) -> dict[str, Fingerprints]:
    """What was read, by release, oldest first."""
    return {release: dict(prints) for release, prints in json.loads(path.read_text())["releases"].items()}


def record(release: str, prints: Fingerprints, path: Path = DATA) -> None:
    """Keep what was read in a tree."""
    releases = (known(path) if path.is_file() else {}) | {release: dict(sorted(prints.items()))}
    in_order = dict(sorted(releases.items(), key=lambda item: numbers(item[0])))
    about = "sha256 (first 16 digits) of the functions that the model cites; `apf citations --write` makes it"
    path.write_text(json.dumps({"format": 1, "about": about, "releases": in_order}, indent=1) + "\n")


def numbers(release: str) -> tuple[int, ...]:
    """A release as numbers, to be ordered by."""
    return tuple(int(n) for n in re.findall(r"\d+", release)[:3])


@dataclass(frozen=True, slots=True)
class Difference:
    """A tree against the newest tree read that is not above it."""

    release: str
    nearest: str
    cited: int
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __str__(self) -> str:
        if not self.changed and not self.gone:
            return f"{self.release}: all {self.cited} cited functions are as in {self.nearest}"
        text = f"{self.release}: {len(self.changed)} of {self.cited} cited functions differ from {self.nearest}"
        text += f": {', '.join(self.changed)}" if self.changed else ""
        return text + (f"; not there: {', '.join(self.gone)}" if self.gone else "")


def compare(release: str, prints: Fingerprints, read: Mapping[str, Fingerprints]) -> Difference:
    """What differs, by function; one that bears another name or file than in the tree read has changed.

    :raise CatalogError: the release is older than every tree that was read.
    """
    below = [name for name in read if numbers(name) <= numbers(release)]
    below = below or [name for name in read if numbers(name)[:2] == numbers(release)[:2]]
    if not below:
        raise CatalogError(f"no tree as old as {release} was read", hint=f"read were {', '.join(read)}")
    nearest = max(below, key=numbers)
    there = read[nearest]
    gone = tuple(name for name, mark in sorted(prints.items()) if not mark and there.get(name) != "")
    changed = tuple(name for name, mark in sorted(prints.items()) if mark and there.get(name) != mark)
    return Difference(release, nearest, sum(bool(mark) for mark in prints.values()) + len(gone), changed, gone)


def leave(tree: Path, folder: Path) -> None:
    """Write the fingerprints of a tree beside the kernel that was built from it; nothing if no model describes it."""
    try:
        with open_source(tree) as (release, source):
            record(release, fingerprints(source, release), folder / LEFT)
    except (CatalogError, ModelError):
        return


def left_in(folder: Path) -> Difference | None:
    """How a kernel that was built here differs from what was read; None when its tree is not known."""
    path = folder / LEFT
    if not path.is_file():
        return None
    ((release, prints),) = known(path).items()
    try:
        return compare(release, prints, known())
    except CatalogError:
        return None


def unread() -> Iterator[str]:
    """Each release that the model says was read, and a function cited for it that has no fingerprint."""
    read = known()
    for numbers_ in READ_RELEASES:
        release = ".".join(str(n) for n in numbers_)
        for file, name in sorted(cited_functions(kernel_for(Variant.NOWAIT, release))):
            if not read.get(release, {}).get(f"{file}:{name}"):
                yield f"{release} {file}:{name}"


@contextmanager
def open_source(place: Path) -> Iterator[tuple[str, Source]]:
    """The release and the files of a kernel tree, or of a linux-source package (.deb).

    :raise CatalogError: neither.
    """
    if place.is_dir():
        tree = place

        def read(file: str) -> str:
            path = tree / file
            return path.read_text(errors="replace") if path.is_file() else ""

        yield _release(read("Makefile"), place), read
    elif place.suffix == ".deb":
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            _unpack(place, Path(scratch), tree)
            with open_source(tree) as opened:
                yield opened
    else:
        raise CatalogError(f"{place} is neither a kernel tree nor a .deb")


def _unpack(deb: Path, scratch: Path, tree: Path) -> None:
    """Of a linux-source package only the Makefile and the files that are cited for some release."""
    extract(deb, scratch, lambda path: path.startswith("usr/src/linux-source-") and ".tar." in path)
    archives = list(scratch.glob("usr/src/linux-source-*.tar.*"))
    if len(archives) != 1:
        raise BuildFailed(f"{deb.name}: holds {len(archives)} source archives, not one")
    wanted = [f"*/{file}" for file in ("Makefile", *sorted({*cited_files(), *PROTOCOL_FILES}))]
    # A pattern without a match is no error here: a file may stand elsewhere in this release.
    argv = ["tar", "-x", "--strip-components=1", "--wildcards", "--no-wildcards-match-slash", "-C", str(tree), "-f"]
    subprocess.run([*argv, str(archives[0]), *wanted], check=False, stderr=subprocess.DEVNULL)
    command(["test", "-f", tree / "Makefile"])


def cited_files() -> set[str]:
    """Every file that is cited for one of the trees read."""
    releases = [".".join(str(n) for n in numbers_) for numbers_ in READ_RELEASES]
    return {file for release in releases for file, _ in cited_functions(kernel_for(Variant.NOWAIT, release))}


def _release(makefile: str, place: Path) -> str:
    found = [re.search(rf"^{key} = (\d+)$", makefile, re.MULTILINE) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if any(match is None for match in found):
        raise CatalogError(f"{place} is not a kernel source tree: its Makefile names no version")
    return ".".join(match[1] for match in found if match is not None)
