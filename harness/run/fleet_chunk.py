# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine of the fleet does: some scenarios on one kernel, by `apf run`, and the run's folder as an archive.

The function here is called by name on the worker, which has the same version of this project installed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.scratch import scratch_folder
from harness.errors import InfraFault
from harness.hosts.deadline import Deadline
from harness.run.fleet_client import is_given_up

MOST_BYTES = 1 << 29
"""Of an archive; a chunk's captures take some ten MiB."""
_AROUND_S = 1800.0
"""For what a kernel and its images may need to be made on a worker that has none yet."""
_EACH_S = 900.0
_LOOK_S = 1.0
_TIDY_S = 120.0
"""For a run that is told to end: hosts are ended, changes to machines taken back."""
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
        large; nobody waits for it any more.
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
        code, said = _performed(
            [*guard, sys.executable, "-m", "harness.cli", *words, "--results", str(results)],
            _AROUND_S + _EACH_S * len(chunk.scenarios),
        )
        run = next((path for path in results.glob("2*") if (path / "results.json").exists()), None)
        if run is None:
            raise InfraFault(f"apf run ended with code {code} and left no results: {said}")
        return _archive(run)


def _performed(argv: list[str], seconds: float) -> tuple[int, str]:
    """Its exit code and the last that it said.  One that takes longer is ended in order, and so is one for which nobody
    waits any more.

    :raise InfraFault: nobody waits for it any more.
    """
    given_up = False
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            argv, cwd=layout.REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        deadline = Deadline.after(seconds, "a chunk")
        try:
            while not given_up and not deadline.expired and not _ended(process, _LOOK_S):
                given_up = is_given_up()
        finally:  # whatever was raised: nobody else would end it
            if process.returncode is None:
                process.terminate()
                if not _ended(process, _TIDY_S):
                    process.kill()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()[-_LAST_WORDS:]
    if given_up:
        raise InfraFault("nobody waits for this chunk any more: whoever asked for it has ended")
    return process.returncode, said


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


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
