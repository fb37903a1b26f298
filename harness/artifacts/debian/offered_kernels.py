# SPDX-License-Identifier: GPL-2.0-or-later
"""The packaged kernels that the machine's mirrors offer, found by asking every suite that may have one.

<store root>/apt/offered.json    the last answer: by suite its kernels, or why it has none
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.artifacts.debian import apt_sources
from harness.artifacts.debian.packages import Packages
from harness.artifacts.store import Store
from harness.errors import InfraFault, Unsupported
from harness.progress import Progress, silent

_FORMAT = 1
_FLAVOUR = re.compile(r"linux-image-\d\S*-cloud-amd64")
"""Debian's kernel for virtual machines, by its series or ABI; "-unsigned" is the same kernel once more."""
_UPSTREAM = re.compile(r"(?:\d+:)?(?P<release>\d+\.\d+(?:\.\d+)*)(?:~(?P<candidate>rc\d+))?")
_ASK_AGAIN_S = 24 * 3600
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class OfferedKernel:
    """One packaged kernel; ``release`` is upstream's ("6.18.15", "7.4-rc2"), ``version`` the package's."""

    suite: str
    package: str
    release: str
    version: str

    @property
    def series(self) -> str:
        """For instance 6.18."""
        return ".".join(re.split(r"[.-]", self.release)[:2])

    @property
    def order(self) -> tuple[int, ...]:
        """By this the releases are in order; a release candidate is before its release."""
        numbers, _, candidate = self.release.partition("-rc")
        major, minor, level, *_ = *(int(n) for n in numbers.split(".")), 0
        return (major, minor, level, int(candidate)) if candidate else (major, minor, level, 1_000_000)


@dataclass(frozen=True, slots=True)
class Offer:
    """What was found: kernels with the newest of each release first seen in the stablest suite, and silent suites.

    :ivar lacking: series of which there are parts only, with a package that is missing, of its newest level.
    """

    kernels: tuple[OfferedKernel, ...]
    without: Mapping[str, str]
    asked: float
    lacking: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str) -> OfferedKernel | None:
        """The kernel called "latest", "debian-6.18" (its newest level), "debian-6.18.5" or "debian-7.4-rc2"."""
        if name == LATEST:
            return max(self.kernels, key=lambda kernel: kernel.order, default=None)
        wanted = name.removeprefix("debian-")
        if wanted == name:
            return None
        exact = [kernel for kernel in self.kernels if kernel.release == wanted]
        series = [kernel for kernel in self.kernels if kernel.series == wanted]
        return exact[0] if exact else max(series, key=lambda kernel: kernel.order, default=None)

    def series(self) -> dict[str, OfferedKernel]:
        """The newest kernel of each series, by name ("debian-6.18"), oldest first."""
        found: dict[str, OfferedKernel] = {}
        for kernel in sorted(self.kernels, key=lambda kernel: kernel.order):
            found[f"debian-{kernel.series}"] = kernel
        return found


def offer(store: Store, *, refresh: bool = False, progress: Progress = silent) -> Offer:
    """What the mirrors offer: the last answer, or a new one when there is none or ``refresh`` asks for it.

    A suite that the mirrors lack is no error; ``Offer.without`` says so.

    :raise InfraFault: no suite could be asked at all.
    """
    path = store.root / "apt/offered.json"
    if not refresh and (kept := _read(path)) is not None:
        return kept
    found: dict[str, list[OfferedKernel]] = {}
    partial: list[tuple[OfferedKernel, str]] = []
    without: dict[str, str] = {}
    for suite in apt_sources.SUITES:
        try:
            names = Packages(store, suite, progress=progress, refresh=True).names("linux-image-")
        except (Unsupported, InfraFault) as error:
            without[suite] = error.message.splitlines()[0]
            continue
        found[suite] = kernels_among(suite, {name: p.version for name, p in names.items() if not p.lacks})
        parts = kernels_among(suite, {name: p.version for name, p in names.items() if p.lacks})
        partial += [(kernel, names[kernel.package].lacks) for kernel in parts]
        if not found[suite]:
            without[suite] = "it has no kernel for virtual machines"
    if not found:
        raise InfraFault("no Debian suite could be asked for its kernels:\n" + "\n".join(set(without.values())))
    whole = _distinct(kernel for kernels in found.values() for kernel in kernels)
    fresh = Offer(whole, without, time.time(), _lacking(whole, partial))
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"format": _FORMAT} | asdict(fresh)))
    draft.replace(path)
    return fresh


def find(store: Store, name: str, *, refresh: bool = False, progress: Progress = silent) -> OfferedKernel | None:
    """The offered kernel of this name; the mirrors are asked anew for one that the last, old answer lacks.

    :raise InfraFault: no suite could be asked.
    """
    current = offer(store, refresh=refresh, progress=progress)
    found = current.named(name)
    if found is None and not refresh and time.time() - current.asked > _ASK_AGAIN_S:
        found = offer(store, refresh=True, progress=progress).named(name)
    return found


def kernels_among(suite: str, names: Mapping[str, str]) -> list[OfferedKernel]:
    """The kernels among packages (version by name) of a suite."""
    found = []
    for name, version in sorted(names.items()):
        upstream = _UPSTREAM.match(version)
        if _FLAVOUR.fullmatch(name) and upstream:
            release = "-".join(part for part in (upstream["release"], upstream["candidate"]) if part)
            found.append(OfferedKernel(suite, name, release, version))
    return found


def _distinct(kernels: Iterable[OfferedKernel]) -> tuple[OfferedKernel, ...]:
    """One kernel of each release: that of the stablest suite, and there the one whose name says most."""
    found: dict[str, OfferedKernel] = {}
    for kernel in kernels:
        known = found.get(kernel.release)
        if known is None or (known.suite == kernel.suite and len(kernel.package) > len(known.package)):
            found[kernel.release] = kernel
    return tuple(sorted(found.values(), key=lambda kernel: kernel.order))


def _lacking(whole: Iterable[OfferedKernel], partial: Iterable[tuple[OfferedKernel, str]]) -> dict[str, str]:
    """Series without any whole kernel, oldest first, with what the newest level of each lacks."""
    series = {kernel.series for kernel in whole}
    ordered = sorted(partial, key=lambda part: part[0].order)
    return {kernel.series: f"{lacks} of {kernel.suite}" for kernel, lacks in ordered if kernel.series not in series}


def _read(path: Path) -> Offer | None:
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if raw.get("format") != _FORMAT:
        return None
    kernels: Sequence[dict[str, str]] = raw["kernels"]
    found = tuple(OfferedKernel(**fields) for fields in kernels)
    return Offer(found, raw["without"], raw["asked"], raw.get("lacking", {}))
