# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person writes (schema, load, matrix) and what is performed (build, plan)."""
