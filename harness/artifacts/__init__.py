# SPDX-License-Identifier: GPL-2.0-or-later
"""What must exist before a host can boot: packages, kernels, images, all in one content-addressed store."""
