# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests start with."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# No test fails because the machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell without job control ignores SIGINT for what it puts into the background, and children inherit that: the tests
# that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
