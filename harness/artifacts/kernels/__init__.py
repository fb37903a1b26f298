# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels: configured, patched, built or taken from a package."""
