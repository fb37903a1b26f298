# SPDX-License-Identifier: GPL-2.0-or-later
"""Captured bytes -> typed events and facts.  Pure: the caller reads the files, so an old capture decodes for ever."""
