# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened on each vCPU, in each worker and on the device, and what should have: lanes over one axis of time."""
