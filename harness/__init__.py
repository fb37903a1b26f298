# SPDX-License-Identifier: GPL-2.0-or-later
"""apf: end-to-end tests for KVM's asynchronous page faults."""

__version__ = "0.1.0"
