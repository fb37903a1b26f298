# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line that repeats one verdict of a run, on the same kernel and host."""

from __future__ import annotations

import sys

from harness.artifacts.catalog import CatalogKernel, find_kernel
from harness.errors import CatalogError
from harness.results import Key
from harness.run.request import Request


def repeat_command(request: Request, key: Key) -> list[str] | None:
    """`apf run` with all options that it takes; the file of the scenario is still to be named.

    :return: None: a kernel that only this run has (a patch that is validated, a revision that is bisected) cannot be
        named to another.
    """
    if any(entry.id == key.kernel and not _has_a_name(entry) for entry in request.extra):
        return None
    words = [sys.executable, "-m", "harness.cli", "run", *request.where(key.kernel), "--repeats", "1"]
    words += ["--disk", request.disk] if request.disk else []
    return [*words, *request.guest_words]


def _has_a_name(entry: CatalogKernel) -> bool:
    try:
        return find_kernel(entry.id) == entry
    except CatalogError:
        return False
