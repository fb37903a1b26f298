# SPDX-License-Identifier: GPL-2.0-or-later
"""What crosses a border between two parts of the harness: the words, the plan, the probe guest's ABI, the capture's
records.  Standard library only, because the agent is shipped with it.
"""
