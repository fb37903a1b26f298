# SPDX-License-Identifier: GPL-2.0-or-later
"""The planned pages: filled, paged out, proved, and looked at again in the end."""
