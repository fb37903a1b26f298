# SPDX-License-Identifier: GPL-2.0-or-later
"""Results for people and for machines: terminal, JUnit XML, TAP, JSON.  Values in, text out."""
