# SPDX-License-Identifier: GPL-2.0-or-later
"""Which steps of a walk decided, for people."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.walk.steps import Step

_PLUMBING = (
    "__gfn_to_pfn_memslot", "hva_to_pfn", "hva_to_pfn_fast", "hva_to_pfn_slow", "vma_is_valid", "follow_page_mask",
    "follow_page", "get_user_page_fast_only", "__get_user_pages_fast", "get_user_pages_fast", "get_user_pages_unlocked",
    "get_user_pages", "get_user_pages_noio", "__get_user_pages", "faultin_page", "handle_mm_fault", "mm_account_fault",
    "handle_pte_fault", "gfn_to_pfn", "gfn_to_pfn_async", "__gfn_to_pfn",
)  # fmt: skip
"""Functions that pass a decision on."""


def deciding(steps: Sequence[Step]) -> str:
    """The last two decisions below GUP; for a page that GUP-fast or the PTE gave, that step."""
    decisions = [s for s in steps if s.function not in _PLUMBING and not s.tested.startswith("write fault on")]
    chosen = decisions[-2:] if decisions else [s for s in steps if "PTE" in s.tested][-1:] or list(steps[-1:])
    return "; ".join(f"{s.function}: {s.tested}: {s.result}" for s in chosen)
