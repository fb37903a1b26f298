# SPDX-License-Identifier: GPL-2.0-or-later
"""A small Debian mirror in a folder, for tests: real packages, real apt, no network."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness.artifacts.debian.apt_sources import Source


def bzimage(banner: str) -> bytes:
    """As much of a bzImage as says which kernel it is (Documentation/x86/boot.rst)."""
    raw = bytearray(0x300)
    raw[0x202:0x206] = b"HdrS"
    raw[0x20E:0x210] = (0x80).to_bytes(2, "little")
    raw[0x280 : 0x280 + len(banner)] = banner.encode()
    return bytes(raw)


@dataclass
class Mirror:
    """``add`` packages, then ``publish`` them as a suite."""

    root: Path
    suite: str = "bookworm"
    paragraphs: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], *, version: str = "1.0-1", depends: str = "") -> Path:
        """Build a package whose files are these."""
        tree = self.root / "build" / f"{name}-{version.replace(':', '_')}"
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example>\nDescription: test\n"
        )
        if depends:
            control += f"Depends: {depends}\n"
        for path, data in {**files, "DEBIAN/control": control.encode()}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
            (tree / path).chmod(0o755 if data.startswith(b"\x7fELF") else 0o644)
        pool = self.root / "pool"
        pool.mkdir(exist_ok=True)
        deb = pool / f"{name}_{version.replace(':', '')}_amd64.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
        data = deb.read_bytes()
        control += f"Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self.paragraphs.append(control)
        return deb

    def publish(self) -> None:
        """Write the indices."""
        folder = self.root / "dists" / self.suite / "main/binary-amd64"
        folder.mkdir(parents=True, exist_ok=True)
        packages = "\n".join(self.paragraphs).encode()
        (folder / "Packages").write_bytes(packages)
        listed = f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
        release = f"Origin: Test\nSuite: {self.suite}\nCodename: {self.suite}\nComponents: main\nArchitectures: amd64\n"
        release += "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
        (self.root / "dists" / self.suite / "Release").write_text(release + "SHA256:\n" + listed)

    def sources(self, *, trusted: bool = True) -> list[Source]:
        """What a machine that uses this mirror has in its sources."""
        options = (("Trusted", "yes"),) if trusted else ()
        return [Source(f"file:{self.root}", "bookworm", ("main",), options)]
