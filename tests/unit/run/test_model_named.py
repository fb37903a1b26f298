# SPDX-License-Identifier: GPL-2.0-or-later
"""The names that `apf explain` and `apf predict` take for a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts import catalog
from harness.errors import CatalogError, ModelError
from harness.model.kernels import find_kernel
from harness.run.model_named import model_named


@pytest.mark.parametrize(
    ("name", "model", "version"),
    [
        ("nowait-6.12", "nowait-6.12", "6.12.117"),
        ("nowait:6.1.158", "nowait-6.1", "6.1.158"),
        ("stock-6.1", "nowait-6.1", "6.1.192"),
        ("debian-5.10", "nowait-5.10", "5.10.262"),
        ("debian-6.12", "nowait-6.12", "6.12.117"),
        ("noio-6.1", "noio-6.1", "6.1.192"),
    ],
)
def test_names(name: str, model: str, version: str) -> None:
    kernel = model_named(name)
    assert (kernel.name, kernel.version) == (model, version)


def test_every_kernel_of_the_catalogue_has_a_model_of_its_variant() -> None:
    for name, entry in catalog.load().items():
        assert model_named(name).variant == entry.variant


def test_a_tree_is_a_kernel_too(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("")
    (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\n")
    assert model_named(str(tmp_path)) == find_kernel("nowait-6.12")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError) as error:
        model_named("stock-9")
    assert "stock-6.1" in str(error.value) and "nowait-7.3" in str(error.value)
    with pytest.raises(CatalogError, match="no kernel at"):
        model_named("/no/such/tree")
