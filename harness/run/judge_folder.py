# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture folder on disk, judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.contract.capture import RunEnd
from harness.errors import CaptureDamaged
from harness.evidence.decode import read_end, read_release
from harness.judge.verdict import JudgedCapture, judge_whole
from harness.judge.verdict_types import Verdict
from harness.model.kernels import KernelModel, kernel_for
from harness.model.known_faults import find_kernel_with_fixes, with_fixes


def read_capture(folder: Path) -> dict[str, bytes]:
    """The files of a capture by their path below its folder.

    :raise CaptureDamaged: there is no such folder, or nothing in it.
    """
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    if not files:
        raise CaptureDamaged(f"{folder}: no capture here")
    return files


def end_of(folder: Path) -> RunEnd | None:
    """How the run ended by its end.json; None: that does not say."""
    try:
        return read_end({"end.json": (folder / "end.json").read_bytes()})
    except (OSError, CaptureDamaged):
        return None


def judge_folder(folder: Path, variant: str) -> Verdict:
    """Judge a capture against the model of a kernel of this variant ("sync", "noio", "nowait"; or a model's full name).

    With "+F1" behind it for each finding of which the kernel has the fix.

    The kernel's exact release comes from the capture, because predictions depend on its stable level.

    :raise CaptureDamaged: there is nothing to judge.
    :raise ModelError: there is no model of such a kernel.
    """
    return judge_folder_whole(folder, variant).verdict


def judge_folder_whole(folder: Path, variant: str) -> JudgedCapture:
    """judge_folder() with what the verdict was made of."""
    files = read_capture(folder)
    return judge_whole(files, model_of(files, variant))


def model_of(files: Mapping[str, bytes], variant: str) -> KernelModel:
    """The model for the host of a capture.

    :raise ModelError: no such variant or model, or a release whose behaviour is not described.
    :raise CaptureDamaged: the capture does not say what its host ran.
    """
    if "-" in variant:
        return find_kernel_with_fixes(variant)
    base, *fixes = variant.split("+")
    return with_fixes(kernel_for(base, read_release(files)), fixes)
