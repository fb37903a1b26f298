# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU and what runs in it: command line, program, hand-over, end."""
