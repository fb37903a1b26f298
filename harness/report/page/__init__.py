# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a run: one HTML file that needs nothing else."""
