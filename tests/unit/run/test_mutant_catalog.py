# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of mutants written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import CatalogError, UsageError
from harness.run.mutant_catalog import choose, load_mutants


def test_the_catalogue_can_be_read_and_numbers_are_used_once() -> None:
    all_of_them = load_mutants()
    assert len(all_of_them) >= 14
    assert len({m.number for m in all_of_them}) == len(all_of_them)
    assert all(m.hangs <= set(m.scenarios) for m in all_of_them if isinstance(m.hangs, frozenset))
    assert choose(all_of_them, [str(all_of_them[0].number)]) == all_of_them[:1]
    with pytest.raises(UsageError, match="NO_SUCH"):
        choose(all_of_them, ["NO_SUCH"])


def test_a_catalogue_that_lacks_something(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[A]\nnumber = 1\nabout = "x"\n')
    with pytest.raises(CatalogError, match="imitates"):
        load_mutants(tmp_path / "m.toml")
