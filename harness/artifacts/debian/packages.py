# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages by apt with a private root: the machine's mirrors and keys, an empty system, no root needed.

<store root>/apt/<suite>/    lists, apt's state, and resolutions that were made (so that a warm cache needs no network)
<store root>/apt/archives/   the downloaded .deb files of all suites
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from harness.artifacts.command import command, missing_tool, tail
from harness.artifacts.debian import apt_sources
from harness.artifacts.store import Store
from harness.errors import InfraFault, Unsupported
from harness.progress import Progress, silent

_T = TypeVar("_T")
ARCHITECTURE = "amd64"
_NOT_THERE = r"404 +Not Found|File not found"
_INST = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) ", re.MULTILINE)
SPARE = re.compile(r"linux-base-\d")
"""A kernel boots without these: they hold its System.map and its configuration."""
_SAME_BUILD = re.compile(r"^(?P<name>[a-z0-9][a-z0-9+.-]+) \(= (?P<version>[^)]+)\)$")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One binary package of one version; ``size`` is that of the .deb file in bytes."""

    name: str
    version: str
    sha256: str
    size: int
    file: str

    def identity(self) -> list[str]:
        """What a recipe needs to say about it."""
        return [self.name, self.version, self.sha256]


@dataclass(frozen=True, slots=True)
class ListedPackage:
    """The newest version of a package, and a package built with it that the mirrors no longer have; empty: none."""

    version: str
    lacks: str = ""


class StaleLists(InfraFault):
    """The mirrors no longer have a package that the kept answer names; asking anew helps."""


class Packages:
    """The packages of one Debian release, as the machine's mirrors offer them.

    The first answer to a question is kept, so a store that is warm needs no network and gives the same images
    again; ``refresh=True`` asks the mirrors anew.
    """

    def __init__(
        self, store: Store, suite: str = "bookworm", *, progress: Progress = silent, refresh: bool = False
    ) -> None:
        self.store = store
        self.suite = suite
        self.progress = progress
        self.root = store.root / "apt" / suite
        self.archives = store.root / "apt" / "archives"
        self._refresh = refresh

    def resolve(self, names: Sequence[str]) -> tuple[Package, ...]:
        """The named packages and all that they depend on, for an empty system, without recommended ones.

        :raise Unsupported: the mirrors do not offer the suite, or not these packages.
        :raise InfraFault: the mirrors cannot be reached, or what they say is not signed as it must be.
        """
        return self._kept(names, lambda: self._resolve(names))

    def _answer(self, question: Sequence[str]) -> Path:
        key = hashlib.sha256(json.dumps(sorted(question)).encode()).hexdigest()[:24]
        return self.root / "resolved" / f"{key}.json"

    def _kept(self, question: Sequence[str], ask: Callable[[], Iterable[Package]]) -> tuple[Package, ...]:
        """The kept answer to a question, or a new one."""
        kept = self._answer(question)
        with self.store.lock(f"apt-{self.suite}"):
            if kept.is_file() and not self._refresh:
                return tuple(Package(**fields) for fields in json.loads(kept.read_text()))
            self._update()
            found = tuple(sorted(ask()))
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(".new")
            draft.write_text(json.dumps([asdict(package) for package in found], indent=1))
            draft.replace(kept)
            return found

    def build_of(self, name: str) -> tuple[Package, ...]:
        """The newest version of a package, and what it needs in exactly its own version: what was built with it.

        Nothing else that it depends on is looked at, so that a suite that holds parts of a system will do.  What is
        SPARE may be missing.

        :raise Unsupported: the mirrors do not offer the suite, or not this package.
        :raise InfraFault: as resolve().
        """
        return self._kept(["build of", name], lambda: self._build_of(name))

    def kept_build(self, name: str) -> tuple[Package, ...]:
        """The answer that build_of() gave earlier, without asking anybody; empty: it was never asked."""
        kept = self._answer(["build of", name])
        return tuple(Package(**fields) for fields in json.loads(kept.read_text())) if kept.is_file() else ()

    def names(self, prefix: str) -> dict[str, ListedPackage]:
        """All packages whose names begin so, each in its newest version; asked anew each time.

        Mirrors keep some packages of a build longer than others: what is lacking is said, but for what is SPARE.

        :raise Unsupported: the mirrors do not offer the suite.
        :raise InfraFault: as resolve().
        """
        with self.store.lock(f"apt-{self.suite}"):
            self._update()
            there = set(self._apt_cache("pkgnames").split())
            found = self._newest(name for name in there if name.startswith(prefix))

        def lacking(name: str) -> str:
            fields = found.get(name)
            if name not in there:
                return "" if SPARE.match(name) else name
            return next(filter(None, map(lacking, _built_with(fields))), "") if fields is not None else ""

        return {name: ListedPackage(fields["Version"], lacking(name)) for name, fields in found.items()}

    def download(self, packages: Sequence[Package]) -> list[Path]:
        """The .deb files, in order; each is what the signed lists say by size and sha256.

        :raise StaleLists: the mirrors have moved on since the packages were resolved.
        :raise InfraFault: a file cannot be had, or is not what it should be.
        """
        paths = [self.archives / package.file for package in packages]
        with self.store.lock("apt-archives"):
            missing = [package for package, path in zip(packages, paths, strict=True) if not _is(package, path)]
            for package in missing:
                # apt takes a file of the right size for the right one.
                (self.archives / package.file).unlink(missing_ok=True)
            if missing:
                self._fetch(missing)
        for package, path in zip(packages, paths, strict=True):
            if not _is(package, path):
                raise InfraFault(f"{path.name}: downloaded, but not the file that the signed package list names")
        return paths

    def _update(self) -> None:
        """Fetch the package lists, unless those of the machine's present sources are here."""
        sources = apt_sources.sources_for(self.suite, apt_sources.machine_sources())
        text = "\n".join(source.deb822() for source in sources)
        done = self.root / "updated"
        if done.is_file() and done.read_text() == text and not self._refresh:
            return
        done.unlink(missing_ok=True)
        self._configure(text)
        self.progress(f"package lists of {self.suite}")
        self._apt_get("update", "--error-on=any")
        done.write_text(text)
        self._refresh = False

    def _configure(self, sources: str) -> None:
        """Write the private root: an empty system whose only sources are these."""
        for part in ("lists/partial", "state", "cache", "empty.d"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        (self.archives / "partial").mkdir(parents=True, exist_ok=True)
        (self.root / "status").write_text("")
        (self.root / "debian.sources").write_text(sources)
        root = self.root
        settings = {
            "Dir::State": f"{root}/state/",
            "Dir::State::lists": f"{root}/lists/",
            "Dir::State::status": f"{root}/status",
            "Dir::Cache": f"{root}/cache/",
            "Dir::Cache::archives": f"{self.archives}/",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::sourcelist": f"{root}/debian.sources",
            "Dir::Etc::sourceparts": f"{root}/empty.d/",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": f"{root}/empty.d/",
            "Dir::Log": f"{root}/state/",
            # Root would become _apt, who cannot enter a cache folder in somebody's home.
            "APT::Sandbox::User": "root",
            "APT::Architecture": ARCHITECTURE,
            "APT::Install-Recommends": "false",
            "APT::Keep-Downloaded-Packages": "true",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Binary::apt-get::APT::Keep-Downloaded-Packages": "true",
        }
        # Hooks of the machine act on its own system; they are not for this one.
        cleared = (
            "APT::Architectures",
            "APT::Update",
            "DPkg::Pre-Install-Pkgs",
            "DPkg::Pre-Invoke",
            "DPkg::Post-Invoke",
        )
        text = "".join(f"#clear {name};\n" for name in cleared)
        text += "".join(f'{name} "{value}";\n' for name, value in settings.items())
        (root / "apt.conf").write_text(text)

    def _resolve(self, names: Sequence[str]) -> Iterator[Package]:
        plan = self._apt_get("install", "--simulate", *names)
        wanted = dict(_INST.findall(plan))
        for fields in self._shown(f"{name}={wanted[name]}" for name in sorted(wanted)):
            if wanted.get(fields["Package"]) != fields["Version"]:
                continue
            del wanted[fields["Package"]]  # one version may be offered by two sources
            yield _package(fields)
        if wanted:
            raise InfraFault(f"apt wants packages that it cannot show: {', '.join(sorted(wanted))}")

    def _build_of(self, name: str) -> Iterator[Package]:
        waiting, done = [name], {name}
        while waiting:
            asked = waiting.pop()
            bare = asked.partition("=")[0]
            if bare not in self._apt_cache("pkgnames", bare).split():
                if SPARE.match(bare):
                    continue
                raise Unsupported(f"this machine's package mirrors lack {bare} in Debian {self.suite}")
            fields = self._newest([asked])[bare]
            yield _package(fields)
            for other in _built_with(fields):
                if other not in done:
                    done.add(other)
                    waiting.append(f"{other}={fields['Version']}")

    def _newest(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """What apt shows of the newest version of each package, by name."""
        found: dict[str, dict[str, str]] = {}
        for fields in self._shown(names):
            known = found.get(fields["Package"])
            if known is None or newer(fields["Version"], known["Version"]):
                found[fields["Package"]] = fields
        return found

    def _shown(self, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """What apt shows of packages, each in all its versions or as NAME=VERSION in that one."""
        asked = list(names)
        if not asked:
            return
        for paragraph in self._apt_cache("show", *asked).strip().split("\n\n"):
            yield dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")

    def _apt_cache(self, *words: str) -> str:
        return command(["apt-cache", "-c", self.root / "apt.conf", *words])

    def _fetch(self, packages: Sequence[Package]) -> None:
        total = sum(package.size for package in packages)
        self.progress(f"downloading {len(packages)} packages of {self.suite}, {total / 1e6:.0f} MB", 0.0)
        # `download` takes exactly these versions, verifies them against the signed lists, and resolves nothing.
        names = [f"{package.name}={package.version}" for package in packages]

        last = 0

        def told(line: str) -> None:
            nonlocal last
            fields = line.split(":", 3)  # dlstatus:<item>:<percent of this size>:<text>
            if fields[0] == "dlstatus" and int(float(fields[2])) > last:
                last = int(float(fields[2]))
                self.progress(f"downloading {len(packages)} packages of {self.suite}", last / 100)

        with self.store.lock(f"apt-{self.suite}"):
            self._update()
        self._apt_get("download", "-o", "APT::Status-Fd=1", *names, told=told, cwd=self.archives)

    def _apt_get(self, *words: str, told: Callable[[str], None] | None = None, cwd: Path | None = None) -> str:
        argv = ["apt-get", "-c", str(self.root / "apt.conf"), "-y", "-q", *words]
        output = []
        with (self.root / "messages").open("w+") as messages:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    text=True,
                    cwd=cwd,
                    env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
                )
            except FileNotFoundError as error:
                raise missing_tool("apt-get") from error
            with process:
                assert process.stdout is not None
                for line in process.stdout:
                    output.append(line)
                    if told is not None:
                        told(line)
            messages.seek(0)
            said = messages.read()
        if process.returncode != 0:
            raise self._explain(words[0], said)
        return "".join(output)

    def _explain(self, verb: str, said: str) -> Unsupported | InfraFault:
        """What apt's messages mean for us."""
        reason = tail("\n".join(line for line in said.splitlines() if line.startswith(("E:", "W:"))) or said)
        if "No space left" in said:
            return InfraFault(f"no space left below {self.store.root}\n{reason}")
        if verb == "download" and re.search(rf"{_NOT_THERE}|Version .* was not found|Unable to locate", said):
            return StaleLists(f"the package mirrors no longer have what their lists named\n{reason}")
        if verb == "update" and re.search(rf"does not have a Release file|{_NOT_THERE}", said):
            return Unsupported(f"this machine's package mirrors do not offer Debian {self.suite}\n{reason}")
        if re.search(r"NO_PUBKEY|is not signed|not be authenticated|EXPKEYSIG|BADSIG", said):
            return InfraFault(f"the package lists of {self.suite} are not signed by a key of this machine\n{reason}")
        if verb == "install" and re.search(r"Unable to locate package|has no installation candidate", said):
            return Unsupported(f"this machine's package mirrors lack a package of Debian {self.suite}\n{reason}")
        return InfraFault(
            f"apt-get {verb} failed for Debian {self.suite}\n{reason}",
            hint="does `apt-get update` work on this machine?",
        )


def with_packages(store: Store, suite: str, progress: Progress, make: Callable[[Packages], _T]) -> _T:
    """``make`` with the packages of a suite; once more with fresh lists if the mirrors have moved on meanwhile."""
    try:
        return make(Packages(store, suite, progress=progress))
    except StaleLists as error:
        progress(error.message.splitlines()[0])
        return make(Packages(store, suite, progress=progress, refresh=True))


def _is(package: Package, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != package.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


def _package(fields: dict[str, str]) -> Package:
    name, version = fields["Package"], fields["Version"]
    # apt names the file so (apt-pkg/acquire-item.cc, QuoteString), with the epoch's colon quoted.
    file = f"{name}_{version.replace(':', '%3a')}_{fields['Architecture']}.deb"
    return Package(name, version, fields["SHA256"], int(fields["Size"]), file)


def _built_with(fields: dict[str, str]) -> Iterator[str]:
    """What a package needs in exactly its own version."""
    for wish in re.split(r"\s*,\s*", fields.get("Depends", "")):
        same = _SAME_BUILD.match(wish)
        if same and same["version"] == fields["Version"]:
            yield same["name"]


def newer(version: str, other: str) -> bool:
    """Whether a Debian version is above another, as dpkg orders them.

    :raise InfraFault: there is no dpkg.
    """
    try:
        return subprocess.run(["dpkg", "--compare-versions", version, "gt", other], check=False).returncode == 0
    except FileNotFoundError as error:
        raise missing_tool("dpkg") from error


def identities(packages: Iterable[Package]) -> list[list[str]]:
    """The packages as a recipe lists them."""
    return [package.identity() for package in sorted(packages)]
