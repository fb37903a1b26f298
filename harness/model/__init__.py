# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux and KVM do, executable and pure: no I/O, no clock, no randomness.  Source: the kernel, as cited."""
