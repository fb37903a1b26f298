# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches onto a source tree: all of a series or mailbox, or an error that names patch, base, file and hunk."""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts.command import missing_tool, tail
from harness.artifacts.scratch import scratch_folder
from harness.errors import BuildFailed, CatalogError

_FILE = re.compile(r"^(?:checking|patching) file '?(?P<file>[^'\n]+)'?")
_HUNK = re.compile(r"^Hunk #(?P<hunk>\d+) FAILED at (?P<line>\d+)")
_MAIL = re.compile(rb"^From \S+ +\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}$", re.MULTILINE)
_PLACE = re.compile(r"^\[[^]]*\b(\d+)/\d+\]")
_TOUCHED = re.compile(r"^(?:---|\+\+\+) [ab]/(\S+)", re.MULTILINE)
_GONE = re.compile(r"^can't find file to patch|^No file to patch|^The next patch (?:would|when)|^Reversed")


def expand(sources: Sequence[Path]) -> list[Path]:
    """The patch files of files and folders, in order; a folder's file ``series`` gives its order.

    :raise CatalogError: a file is missing, or a folder has no patches.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            series = source / "series"
            if series.is_file():
                lines = (line.split("#", 1)[0].strip() for line in series.read_text().splitlines())
                patches = [source / line for line in lines if line]
            else:
                patches = sorted(source.glob("*.patch"))
            if not patches:
                raise CatalogError(f"{source}: there are no patches in this folder")
            found += patches
        else:
            found.append(source)
    for patch in found:
        if not patch.is_file():
            raise CatalogError(f"there is no patch {patch}")
    return found


def split_mbox(mbox: Path, folder: Path) -> list[Path]:
    """The patches of a mailbox as b4 and git format-patch make it, each as a file in ``folder``, in the series' order.

    Mails that change nothing, such as a cover letter, are left out; a transfer encoding is undone.  A file that is no
    mailbox is one patch.

    :raise CatalogError: it cannot be read, or no mail in it has a patch.
    """
    try:
        raw = mbox.read_bytes()
    except OSError as error:
        raise CatalogError(f"{mbox}: {error.strerror}") from error
    starts = [found.start() for found in _MAIL.finditer(raw)]
    if not starts:
        return [mbox]
    mails = [raw[a:b].split(b"\n", 1)[1] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    found: list[tuple[int, str, bytes]] = []
    for mail in mails:
        message = email.message_from_bytes(mail, policy=email.policy.default)
        text = message.get_payload(decode=True) if not message.is_multipart() else None
        if not isinstance(text, bytes) or not changes_something(text):
            continue
        subject = " ".join(str(message["Subject"] or "").split())
        place = _PLACE.search(subject)
        found.append((int(place[1]) if place else 0, subject, text))
    if not found:
        raise CatalogError(f"{mbox}: no mail in it changes anything (a hunk begins with @@)")
    if all(place for place, _, _ in found):
        found.sort(key=lambda patch: patch[0])
    paths = []
    for number, (_, subject, text) in enumerate(found, 1):
        slug = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"^\[[^]]*\]\s*", "", subject)).strip("-")[:60]
        path = folder / f"{number:04}-{slug or 'patch'}.patch"
        path.write_bytes(f"Subject: {subject}\n\n".encode() + text)
        paths.append(path)
    return paths


def changes_something(text: bytes) -> bool:
    """Whether there is a hunk in it."""
    return re.search(rb"^@@ .*@@", text, re.MULTILINE) is not None or b"GIT binary patch" in text


def try_on(tree: Path, patches: Sequence[Path], base: str = "") -> None:
    """Apply the patches to a copy of the files that they touch, so that the tree stays what it is.

    :raise BuildFailed: as apply().
    """
    touched = {name for patch in patches for name in _TOUCHED.findall(patch.read_text(errors="replace"))}
    with scratch_folder("apf-patches-") as scratch:
        for name in touched:
            if (tree / name).is_file():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree / name, scratch / name)
        apply(scratch, patches, base or tree.name)


def apply(tree: Path, patches: Sequence[Path], base: str = "") -> None:
    """Apply the patches in order; files they do not touch keep their times, hard links to touched files are broken.

    :param base: what the tree is, for people.
    :raise BuildFailed: one does not apply; the tree is then half patched and of no further use.
    """
    for number, patch in enumerate(patches, 1):
        words = ["patch", "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-"]
        try:
            done = subprocess.run(
                [*words, "-i", str(patch)], cwd=tree, capture_output=True, text=True, errors="replace", check=False
            )
        except FileNotFoundError as error:
            raise missing_tool("patch") from error
        if done.returncode != 0:
            which = f"patch {number} of {len(patches)}, {patch.name}," if len(patches) > 1 else patch.name
            raise BuildFailed(f"{which} does not apply to {base or tree.name}:\n{_why(done.stdout + done.stderr)}")


def _why(said: str) -> str:
    """The files and hunks that failed, from patch(1)'s messages."""
    file = ""
    failures = []
    for line in said.splitlines():
        if match := _FILE.match(line):
            file = match["file"]
        elif match := _HUNK.match(line):
            failures.append(f"    {file}: hunk {match['hunk']} (line {match['line']})")
        elif _GONE.match(line):
            failures.append(f"    {file + ': ' if file else ''}{line}")
    return "\n".join(failures) or tail(said)
