# SPDX-License-Identifier: GPL-2.0-or-later
"""How many slots of the swap device are taken by nobody, when its VMM is gone."""

from __future__ import annotations

import errno
from functools import partial

from harness.agent.host import syscalls
from harness.agent.host.bounded import within
from harness.agent.host.others_swap import used_pages

SECONDS = 10.0
"""swapoff(2) reads nothing then, as what was in the slots is gone."""


def slots_left(device: str) -> int | None:
    """Turn swapping to this device off, which takes the slots back that each CPU keeps (mm/swap_slots.c).

    A slot that is not free is looked for until its user is found, so that swapoff(2) never comes back where there is
    none (mm/swapfile.c:try_to_unuse).

    :param device: "": no page was ever swapped to one.
    :return: None: there is no such device, or it is in use no more.
    :raise OSError: it cannot be turned off for another reason.
    """
    if not device:
        return None
    try:
        within(SECONDS, partial(syscalls.swapoff, device), f"swapoff {device}")
    except TimeoutError:
        return used_pages(device)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return None
    return 0
