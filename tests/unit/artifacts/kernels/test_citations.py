# SPDX-License-Identifier: GPL-2.0-or-later
"""Every function that the model cites exists, in the file that it cites, in the release that it cites."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.artifacts.kernels import citations
from harness.artifacts.kernels.citations import (
    compare,
    function_text,
    known,
    open_source,
    protocol_functions,
    record,
)
from harness.cli.citations import download
from harness.errors import CatalogError
from harness.model.kernel_changes import READ_RELEASES
from harness.model.kernels import Variant, find_kernel, kernel_for
from harness.model.walk.function_names import NAMES, name_in
from harness.model.walk.gup import cited_functions

SOURCE = """
/* static int hidden(void) { } */
static int helper(int a);
int helper_more(int a) { return a; }

static inline vm_fault_t
helper(int a)
{
	if (a) { /* } */
		pr_info("}\\"");
		return '}';
	}
	return helper_more(a);
}
void noted(struct a *b) __releases(b->lock)
{
	helper(1);
}
"""


def test_a_function_is_its_definition_without_comments_and_spacing() -> None:
    text = function_text(SOURCE, "helper")
    assert text.startswith("static inline vm_fault_t helper(int a) {") and text.endswith("return helper_more(a); }")
    assert '"}\\""' in text and "/*" not in text
    assert function_text(SOURCE, "helper_more") == "int helper_more(int a) { return a; }"
    assert function_text(SOURCE, "noted").endswith("{ helper(1); }")
    assert not function_text(SOURCE, "hidden") and not function_text(SOURCE, "help") and not function_text("", "helper")


@given(st.sampled_from([" ", "\t", "\n", " /* why */ ", "  "]))
def test_spacing_and_comments_do_not_count(gap: str) -> None:
    """Between any two words of a body."""
    plain = "int f(int a)\n{\n\tif (a) return 1; return 2;\n}\n"
    spaced = plain.replace("if (a) return 1; return", f"if (a){gap}return{gap} 1;{gap}return")
    assert function_text(spaced, "f") == function_text(plain, "f")


def test_every_function_cited_for_a_tree_that_was_read_stands_in_it() -> None:
    assert not list(citations.unread())
    assert list(known()) == [".".join(map(str, release)) for release in READ_RELEASES]


def test_nothing_is_kept_that_is_not_cited() -> None:
    for release, prints in known().items():
        walked = cited_functions(kernel_for(Variant.NOWAIT, release))
        cited = {f"{file}:{name}" for file, name in walked}
        cited |= set(protocol_functions()) - {name for _, name in walked}
        assert set(prints) == cited, f"apf citations --write, for {release}"


def test_every_function_of_the_protocol_stands_in_a_tree_that_was_read() -> None:
    found = {key.rpartition(":")[2] for prints in known().values() for key, mark in prints.items() if mark}
    only_patched = {"get_user_pages_noio", "kvm_arch_vcpu_ioctl_set_mpstate"}  # a function, and APF in one, of our own
    assert set(protocol_functions()) - found == only_patched


def test_a_function_with_other_names_is_told_apart_by_release() -> None:
    assert name_in(find_kernel("nowait-5.10"), "mm/swap_state.c", "swap_cache_get_folio")[1] == "lookup_swap_cache"
    assert name_in(find_kernel("nowait-6.12"), "mm/page_io.c", "swap_readpage")[1] == "swap_read_folio"
    for names in NAMES.values():
        assert [since for since, _, _ in names] == sorted(since for since, _, _ in names)


def test_what_differs_is_named(tmp_path: Path) -> None:
    read = {"6.1.192": {"a.c:f": "1", "a.c:g": "2"}, "7.3.4": {"a.c:f": "3", "a.c:g": "2"}}
    assert str(compare("7.4.0", {"a.c:f": "3", "a.c:g": "2"}, read)) == "7.4.0: all 2 cited functions are as in 7.3.4"
    other = compare("6.6.1", {"a.c:f": "9", "a.c:g": ""}, read)
    assert (other.nearest, other.changed, other.gone) == ("6.1.192", ("a.c:f",), ("a.c:g",))
    assert str(other) == "6.6.1: 1 of 2 cited functions differ from 6.1.192: a.c:f; not there: a.c:g"
    absent = {"7.3.4": {"a.c:f": "3", "moved": "", "protocol": "4"}}
    lost = compare("7.4.0", {"a.c:f": "3", "moved": "", "protocol": ""}, absent)
    assert (lost.gone, lost.cited) == (("protocol",), 2)  # what the tree that was read lacks too is nothing new
    with pytest.raises(CatalogError, match=r"no tree as old as 5\.4\.1"):
        compare("5.4.1", {}, read)
    path = tmp_path / "citations.json"
    for release in ("7.3.4", "6.1.192"):
        record(release, read[release], path)
    assert known(path) == read and list(known(path)) == ["6.1.192", "7.3.4"]


def test_a_tree_says_its_release(tmp_path: Path) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm/a.c").write_text("int f(void)\n{\n}\n")
    with pytest.raises(CatalogError, match="names no version"), open_source(tmp_path):
        pass
    (tmp_path / "Makefile").write_text("# SPDX\nVERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\n")
    with open_source(tmp_path) as (release, source):
        assert release == "7.4.0" and "int f" in source("mm/a.c") and source("mm/b.c") == ""
    with pytest.raises(CatalogError, match="neither a kernel tree"), open_source(tmp_path / "Makefile"):
        pass


@pytest.mark.build
@pytest.mark.parametrize(
    ("suite", "package"),
    [("bullseye", "linux-source-5.10"), ("bookworm", "linux-source-6.1"), ("bookworm", "linux-source-6.12")],
)
def test_the_packaged_sources_have_every_function_that_is_cited(suite: str, package: str) -> None:
    """Of a stable level that was read also that each reads as it did."""
    with open_source(download(suite, package)) as (release, source):
        prints = citations.fingerprints(source, release)
    assert not [function for function, mark in prints.items() if not mark and ":" in function]
    if release in known():
        assert prints == known()[release]
