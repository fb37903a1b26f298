# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests start with."""

from __future__ import annotations

import signal

# A shell without job control ignores SIGINT for what it puts into the background, and children inherit that: the tests
# that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
