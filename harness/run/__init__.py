# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place where order is decided: which scenarios on which host, performed, judged, and whether all of it was."""
