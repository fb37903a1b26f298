# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios that nobody wrote: made at random, run, and made small where model and kernel disagree."""
