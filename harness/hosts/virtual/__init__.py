# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual host: a VM that runs the kernel under test."""
