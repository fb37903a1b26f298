# SPDX-License-Identifier: GPL-2.0-or-later
"""The model of a kernel by any name that people use: the model's own, VARIANT:RELEASE, or that of the catalogue."""

from __future__ import annotations

import re

from harness.artifacts import catalog
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.kernels.citations import open_source
from harness.errors import CatalogError, ModelError
from harness.model.kernels import KERNEL_NAMES, KernelModel, kernel_for
from harness.model.known_faults import find_kernel_with_fixes, with_fixes

_RELEASE = re.compile(r"\d{1,4}\.\d{1,4}(\.\d{1,6})?([-+~][\w.+~-]{0,80})?", re.ASCII)


def model_named(name: str) -> KernelModel:
    """The model of ``nowait-6.1``, ``nowait:6.1.158``, ``stock-6.1`` (as `apf run` takes it) or a kernel tree.

    ``nowait-6.1+F1`` is one with the fix of finding F1.
    The stable level of a kernel of the catalogue is that of the tree that was read, as long as it is not built.

    :raise ModelError: no such name, or a kernel that is not described.
    :raise CatalogError: a path that is no kernel tree.
    """
    variant, colon, release = name.partition(":")
    if colon:
        if not _RELEASE.fullmatch(release):
            raise ModelError(f"{release!r} is not a kernel release", hint="expected something like nowait:6.1.192")
        return kernel_for(variant, release)
    try:
        return find_kernel_with_fixes(name)
    except ModelError:
        pass
    try:
        entry = catalog.find_kernel(name)
    except CatalogError as error:
        if "/" in name:
            raise
        known = ", ".join((*KERNEL_NAMES, *catalog.load()))
        raise ModelError(f"unknown kernel {name!r}", hint=f"known: {known}; or VARIANT:RELEASE") from error
    return model_of_entry(entry)


def model_of_entry(entry: CatalogKernel) -> KernelModel:
    """The model of a kernel of the catalogue, of the mirrors, or of a tree.

    :raise ModelError: its name does not say which release it is, or it is not described.
    """
    return with_fixes(kernel_for(entry.variant, entry.release or _release(entry)), entry.fixes)


def _release(entry: CatalogKernel) -> str:
    """The release of a kernel of the catalogue, from its package's name or else its own."""
    if entry.source is SourceKind.TREE and entry.path is not None:
        with open_source(entry.path) as (release, _):
            return release
    for text in (entry.id, entry.package):  # Debian's packages of 6.1.192 are called 6.1.0-56
        if found := re.search(r"\d+\.\d+(?:\.\d+)*", text):
            return found[0]
    raise ModelError(f"{entry.id}: its name does not say which release it is", hint="give VARIANT:RELEASE")
