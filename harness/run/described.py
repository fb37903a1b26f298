# SPDX-License-Identifier: GPL-2.0-or-later
"""Is there a model of this kernel?  Asked as early as its release is known: before it is built, and before it boots."""

from __future__ import annotations

import re

from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.kernels.built_kernel import banner_of
from harness.errors import ModelError, Unsupported
from harness.model.kernels import kernel_for
from harness.model.known_faults import with_fixes

_MAKEFILE = re.compile(r"^VERSION = (\d+)\nPATCHLEVEL = (\d+)\nSUBLEVEL = (\d+)$", re.MULTILINE)
_IN_A_NAME = re.compile(r"-(\d+\.\d+)$")


def stated_release(entry: CatalogKernel) -> str:
    """The release of a kernel as far as it can be told without building it; empty when it cannot.

    A tree says it in its top Makefile, a bzImage in its header, a package in what the mirrors say, in its own name
    ("linux-source-6.1") or that of the catalogue ("debian-6.1").

    :raise CatalogError: the file is not a bzImage.
    """
    match entry.source:
        case SourceKind.TREE if entry.path is not None and not entry.revision:
            found = _MAKEFILE.search((entry.path / "Makefile").read_text(errors="replace"))
            return ".".join(found.groups()) if found else ""
        case SourceKind.BZIMAGE if entry.path is not None and entry.path.is_file():
            return banner_of(entry.path)
        case SourceKind.PACKAGE | SourceKind.LINUX_SOURCE:
            if entry.release:
                return entry.release
            named = _IN_A_NAME.search(entry.package) or _IN_A_NAME.search(entry.id)
            return named[1] if named else ""
        case _:
            return ""


def require_model(entry: CatalogKernel) -> None:
    """Refuse a kernel that no model describes, as far as its release is known before it is built.

    :raise ModelError: its behaviour is not described.
    """
    release = stated_release(entry)
    if not release:
        return
    try:
        with_fixes(kernel_for(entry.variant, release), entry.fixes)
    except ModelError as exc:
        raise ModelError(f"{entry.id}: {exc.message}", hint=exc.hint) from exc


def require_model_of_built(name: str, variant: str, release: str) -> None:
    """The same for a kernel that is there, before a host boots it: other kernels of the run go on.

    :raise Unsupported: its behaviour is not described.
    """
    try:
        kernel_for(variant, release)
    except ModelError as exc:
        raise Unsupported(f"{name}: {exc.message}", hint=exc.hint) from exc
