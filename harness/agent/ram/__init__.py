# SPDX-License-Identifier: GPL-2.0-or-later
"""What backs the guest's RAM: preparation and clean-up of each kind."""
