# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that are booted: archives, file systems, keys, modules, the agent."""
