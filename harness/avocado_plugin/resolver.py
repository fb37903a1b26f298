# SPDX-License-Identifier: GPL-2.0-or-later
"""From references to runnables: ``x.toml`` (all scenarios of the file), ``x.toml:ID``, a folder, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avocado.core.nrunner.runnable import Runnable
from avocado.core.plugin_interfaces import Discoverer, Resolver
from avocado.core.references import reference_split
from avocado.core.resolver import ReferenceResolution, ReferenceResolutionResult, check_file

from harness.errors import ApfError
from harness.run.scenario_sources import default_scenarios, read_scenarios

KIND = "apf-scenario"


class ScenarioResolver(Resolver):  # type: ignore[misc]  # Avocado has no types
    """TOML files that hold scenarios."""

    name = KIND
    description = "Test resolver for apf scenarios (TOML)"

    def resolve(self, reference: str) -> ReferenceResolution:
        """One runnable for each scenario that is meant.  A file that is wrong is CORRUPT, with all that is wrong."""
        path, wanted = reference_split(reference)
        found = check_file(path, reference, suffix=".toml")
        if found is not True:
            return found
        try:
            scenarios = read_scenarios([Path(path)])
        except ApfError as exc:
            return ReferenceResolution(reference, ReferenceResolutionResult.CORRUPT, info=str(exc))
        runnables: list[Any] = [
            Runnable(KIND, f"{path}:{s.id}", tags=dict.fromkeys(s.tags))
            for s in scenarios
            if wanted in (None, s.id, s.id.partition("/")[0])
        ]
        if not runnables:
            return ReferenceResolution(
                reference, ReferenceResolutionResult.NOTFOUND, info=f"{path} has no scenario {wanted!r}"
            )
        return ReferenceResolution(reference, ReferenceResolutionResult.SUCCESS, runnables)


class ScenarioDiscoverer(Discoverer):  # type: ignore[misc]  # Avocado has no types
    """What ``avocado run`` without references runs."""

    name = KIND
    description = "Test discoverer for apf scenarios (TOML)"

    def discover(self) -> list[ReferenceResolution]:
        """All files of the scenario folder."""
        try:
            folder = Path((self.config or {}).get("apf.scenario_dir") or default_scenarios())
        except ApfError as exc:
            return [ReferenceResolution("", ReferenceResolutionResult.NOTFOUND, info=str(exc))]
        resolver = ScenarioResolver()
        return [resolver.resolve(str(path)) for path in sorted(folder.rglob("*.toml"))]
