# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine of the fleet does: some scenarios on one kernel, by `apf run`, and the run's folder as an archive.

The function here is called by name on the worker, which has the same version of this project installed.
"""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.scratch import scratch_folder
from harness.errors import InfraFault

MOST_BYTES = 1 << 29
"""Of an archive; a chunk's captures take some ten MiB."""
_AROUND_S = 1800.0
"""For what a kernel and its images may need to be made on a worker that has none yet."""
_EACH_S = 900.0
_LAST_WORDS = 2000
_PARTS = ("harness", "tests/scenarios", "kernels", "guest-images")


@dataclass(frozen=True, slots=True)
class FleetChunk:
    """Jobs of one kernel that one worker performs on one host.

    :ivar version: of the project, as version_of_this() says it where the chunk was made.
    :ivar kernel: empty: the one that the worker's host has.
    :ivar scenarios: as TOML texts.
    :ivar words: further options of `apf run`.
    """

    version: str
    kernel: str
    scenarios: tuple[str, ...]
    words: tuple[str, ...] = ()


@functools.cache
def version_of_this() -> str:
    """A digest of everything that decides what a scenario is and how it is judged."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((layout.REPOSITORY / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(layout.REPOSITORY)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def perform_chunk(chunk: FleetChunk) -> bytes:
    """Perform it; the run's folder as a tar.

    :raise InfraFault: this worker has another version of the project; `apf run` left no results; the archive is too
        large.
    """
    if chunk.version != version_of_this():
        raise InfraFault("the worker has another version of this project than the one that asks")
    with scratch_folder("apf-fleet-") as scratch:
        files = scratch / "scenarios"
        files.mkdir()
        for number, text in enumerate(chunk.scenarios):
            (files / f"{number:04}.toml").write_text(text)
        words = ["run", "--scenarios", str(files), "--repeats", "1", *chunk.words]
        words += ["--kernel", chunk.kernel] if chunk.kernel else []
        results = scratch / "results"
        # It ends with this process, however that ends: its virtual host goes with it.
        guard = [shutil.which("setpriv") or "setpriv", "--pdeathsig", "TERM", "--"]
        done = subprocess.run(
            [*guard, sys.executable, "-m", "harness.cli", *words, "--results", str(results)],
            cwd=layout.REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_AROUND_S + _EACH_S * len(chunk.scenarios), check=False,
        )  # fmt: skip
        run = next((path for path in results.glob("2*") if (path / "results.json").exists()), None)
        if run is None:
            said = done.stdout.decode(errors="replace").strip()[-_LAST_WORDS:]
            raise InfraFault(f"apf run ended with code {done.returncode} and left no results: {said}")
        return _archive(run)


def _archive(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                continue
            archive.add(path, str(path.relative_to(folder)), recursive=False)
            if stream.tell() > MOST_BYTES:
                raise InfraFault(f"the results of the chunk take more than {MOST_BYTES >> 20} MiB")
    return stream.getvalue()
