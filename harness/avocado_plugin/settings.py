# SPDX-License-Identifier: GPL-2.0-or-later
"""The settings that an Avocado configuration file may have, in the section [apf]."""

from __future__ import annotations

from avocado.core.plugin_interfaces import Init
from avocado.core.settings import settings

OPTIONS: dict[str, tuple[str, str]] = {
    "kernel": ("debian-6.1", "Kernel under test: a name from `apf kernels`, a bzImage or a kernel tree"),
    "scenario_dir": ("", "Folder of scenario files for `avocado run` without references (default: tests/scenarios)"),
    "allow_unsupported": ("", "Ids of scenarios, separated by blanks, that may be unsupported on this machine"),
    "accept_findings": ("", "File of findings about shipped kernels that are no failure where they are reproduced"),
    "command": ("", "What performs one scenario (default: `apf run` of the same Python)"),
}
"""name: (default, help); the full name of each is "apf.<name>"."""


class ScenarioInit(Init):  # type: ignore[misc]  # Avocado has no types
    """Registers them."""

    name = "apf-scenario"
    description = "Settings of apf scenarios"

    def initialize(self) -> None:
        """Called by Avocado before anything is resolved."""
        for key, (default, text) in OPTIONS.items():
            settings.register_option(section="apf", key=key, default=default, help_msg=text)
