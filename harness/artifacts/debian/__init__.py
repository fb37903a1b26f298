# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages: where they come from, fetched and unpacked."""
