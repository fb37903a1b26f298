# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without a model is refused before anything is built or booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.catalog import CatalogKernel, SourceKind, load
from harness.errors import ModelError, Unsupported
from harness.run.described import require_model, require_model_of_built, stated_release
from harness.run.request import Request
from harness.run.runner import run
from tests.unit.run.test_bad_luck import Listener

MAKEFILE = "# SPDX-License-Identifier: GPL-2.0\nVERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\nEXTRAVERSION =\n"


def tree(folder: Path, *release: int) -> CatalogKernel:
    folder.mkdir(exist_ok=True)
    (folder / "Kconfig").write_text("x\n")
    (folder / "Makefile").write_text(MAKEFILE.format(*release))
    return CatalogKernel("mine", SourceKind.TREE, path=folder)


def test_a_tree_says_it_in_its_makefile(tmp_path: Path) -> None:
    assert stated_release(tree(tmp_path, 6, 1, 158)) == "6.1.158"
    require_model(tree(tmp_path, 6, 1, 158))
    with pytest.raises(ModelError, match=r"mine: .*4\.19.* not described"):
        require_model(tree(tmp_path, 4, 19, 3))


def test_a_tree_that_does_not_say_it_is_asked_again_when_it_is_built(tmp_path: Path) -> None:
    entry = tree(tmp_path, 6, 1, 1)
    (tmp_path / "Makefile").write_text("all:\n")
    assert stated_release(entry) == ""
    require_model(entry)


def test_every_kernel_of_the_catalogue_says_its_series_and_has_a_model() -> None:
    for entry in load().values():
        assert stated_release(entry), entry.id
        require_model(entry)


def test_a_built_kernel_without_a_model_is_unsupported() -> None:
    require_model_of_built("k", "nowait", "6.1.192")
    with pytest.raises(Unsupported, match="k: "):
        require_model_of_built("k", "noio", "6.12.5")


def test_a_run_on_an_old_tree_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    tree(tmp_path / "linux", 4, 19, 0)
    request = Request(kernels=(str(tmp_path / "linux"),), results=tmp_path / "results")
    with pytest.raises(ModelError, match="not described"):
        run(request, Listener(""))
    assert not (tmp_path / "results").exists()
