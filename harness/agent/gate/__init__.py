# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device whose reads end when the plan says so: the server behind the kernel's nbd client."""
