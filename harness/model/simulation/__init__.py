# SPDX-License-Identifier: GPL-2.0-or-later
"""A Situation played through: vCPU threads, workers, the disk and the guest, with KVM between them."""
