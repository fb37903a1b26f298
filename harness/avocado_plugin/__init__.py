# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios as first-class Avocado tests: ``avocado run tests/scenarios``.  Avocado runs them, it does not own them."""
