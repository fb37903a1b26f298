# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host comes from, and how the agent is shipped to it, started and watched.  The interface is base.py."""
