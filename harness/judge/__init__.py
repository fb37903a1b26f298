# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence against prediction.  Pure; asks the model, decides nothing that the model could decide."""
