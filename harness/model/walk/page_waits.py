# SPDX-License-Identifier: GPL-2.0-or-later
"""What a thread sleeps for in a walk, wherever it comes to it."""

from __future__ import annotations

from harness.model.pages import Lock, Pte
from harness.model.walk.steps import Context, Steps, WaitKind


def wait_until_unlocked(ctx: Context, *, mmap_lock_held: bool) -> Steps[None]:
    """Sleep while PG_locked is held, by a read in flight (own or not) or for another reason."""
    while ctx.page.folio is not None and ctx.page.folio.lock is not Lock.NO:
        kind = WaitKind.PAGE_LOCK
        if ctx.page.folio.lock is Lock.READ:
            kind = WaitKind.OWN_READ if ctx.own_read else WaitKind.OTHERS_READ
        yield ctx.sleep(kind, mmap_lock_held=mmap_lock_held)


def wait_until_migrated(ctx: Context) -> Steps[None]:
    """Sleep, with mmap_lock held, until the migration entry is a PTE again."""
    while ctx.page.pte is Pte.MIGRATION:
        yield ctx.sleep(WaitKind.MIGRATION, mmap_lock_held=True)
