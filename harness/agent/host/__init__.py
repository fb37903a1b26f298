# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent changes and reads on the host: devices, swap, cgroups, tracing, counters."""
