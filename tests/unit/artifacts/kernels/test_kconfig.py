# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments, wishes and what became of them."""

from __future__ import annotations

from harness.artifacts import layout
from harness.artifacts.kernels import kconfig

BASE = """# SPDX-License-Identifier: GPL-2.0-or-later
# About the file.

# --- KVM (all scenarios) ---
CONFIG_KVM=y
CONFIG_KVM_AMD=y
# no retpolines: slow
# CONFIG_RETPOLINE is not set

CONFIG_NAME="x"
"""


def test_reasons_are_the_comments_above() -> None:
    found = kconfig.wanted([("base.config", BASE)])
    assert {wish.symbol: (wish.value, wish.reason) for wish in found.values()} == {
        "KVM": ("y", "KVM (all scenarios)"),
        "KVM_AMD": ("y", "KVM (all scenarios)"),
        "RETPOLINE": ("n", "no retpolines: slow"),
        "NAME": ('"x"', ""),
    }


def test_a_later_fragment_overrides() -> None:
    found = kconfig.wanted([("a", "CONFIG_X=y\nCONFIG_Y=y\n"), ("b", "# less\n# CONFIG_X is not set\n")])
    assert (found["X"].value, found["X"].fragment) == ("n", "b")
    assert found["Y"].fragment == "a"


def test_wishes_that_were_not_granted_say_why() -> None:
    config = 'CONFIG_KVM=m\n# CONFIG_KVM_AMD is not set\nCONFIG_NAME="x"\n'
    refused = kconfig.missing(config, kconfig.wanted([("base.config", BASE)]))
    text = kconfig.complain(config, refused)
    assert text.splitlines() == [
        "  CONFIG_KVM=y of base.config became m (wanted for: KVM (all scenarios))",
        "  CONFIG_KVM_AMD=y of base.config became n (wanted for: KVM (all scenarios))",
    ]


def test_an_absent_symbol_is_not_set() -> None:
    assert kconfig.missing("", kconfig.wanted([("f", "# CONFIG_X is not set\n")])) == []


def test_what_a_host_cannot_do_without() -> None:
    assert kconfig.lacks("CONFIG_KVM=y\nCONFIG_KVM_INTEL=y\n") == []
    assert kconfig.lacks("CONFIG_KVM=m\nCONFIG_KVM_AMD=m\n") == ["KVM", "KVM_AMD or KVM_INTEL"]


def test_each_option_of_ours_has_a_reason() -> None:
    for path in (layout.KERNELS / "config").glob("*.config"):
        wishes = kconfig.wanted([(path.name, path.read_text())])
        assert wishes
        assert [wish.symbol for wish in wishes.values() if not wish.reason] == []
