# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on the host as root: performs a plan, leaves a capture folder, undoes everything.

Shipped as one zipapp: the standard library and qemu.qmp only, no other part of ours than the plan and the errors.
"""
