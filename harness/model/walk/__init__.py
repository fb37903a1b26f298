# SPDX-License-Identifier: GPL-2.0-or-later
"""One access walked through the kernel's functions, step by step, as generators named after them."""
