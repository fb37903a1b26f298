# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules over observed events: a checker for each vCPU, and what it keeps."""
