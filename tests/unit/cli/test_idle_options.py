# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody is to believe that an option was obeyed which was not: what would change nothing is refused, and nothing is
begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.command import Called, one_message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--wait", "5"], "--wait is for machines that others may have"),
        (["run", "--lab", "lab.toml"], "--lab is for machines of the lab"),
        (["run", "--host", "local", "--lab", "lab.toml"], "--lab is for machines of the lab"),
        (["run", "--host", "local", "--hosts", "2"], "--hosts is for virtual hosts: local is one machine"),
        (["run", "--on", "tcp://127.0.0.1:1", "--hosts", "2"], "with --on each worker has one host"),
        (["run", "--on", "tcp://127.0.0.1:1", "--tls-ca", "ca.pem"], "is without TLS"),
        (["run", "--tls-ca", "ca.pem", "--tls-key", "key.pem"], "--tls-ca, --tls-key: only --on speaks TLS"),
        (["run", "--on", "tcp://127.0.0.1:1", "--host", "ssh:box", "--lab", "lab.toml"], "--lab is a file of this"),
        (["doctor", "S23"], "are for a machine that is to be the host"),
        (["doctor", "--no-trial"], "are for a machine that is to be the host"),
        (["doctor", "--scenarios", "."], "are for a machine that is to be the host"),
        (["doctor", "--disk", "/dev/vdb"], "a virtual host has a disk of its own"),
        (["doctor", "--wait", "5"], "--wait is for machines that others may have"),
        (["explore", "--plans", "1", "--allow-unsupported", "S23"], "are for scenarios that have a name"),
        (["explore", "--plans", "1", "--accept-findings", "f.toml"], "are for scenarios that have a name"),
        (["explore", "--plans", "1", "--mutants", "--keep"], "--mutants does not go with --keep"),
        (["explore", "--plans", "1", "--shrink", "60", "--mutants"], "--mutants does not go with --shrink"),
        (["explore", "--plans", "1", "--hosts", "2", "--mutants"], "--mutants does not go with --hosts"),
        (["explore", "--minutes", "1", "--mutants"], "--mutants needs --plans"),
        (["explore", "--plans", "1", "--mutants", "-k", "debian-6.1"], "debian-6.1 has no mistakes in it"),
        (["explore", "--plans", "1", "--mutants", "-k", "points-6.1"], "points-6.1 has systematic mistakes"),
        (["mutants", "--kernel", "debian-6.1", "TOKEN_ZERO"], "debian-6.1 has no mistakes in it"),
        (["mutants", "--accept-findings", "f.toml"], "--accept-findings"),
        (["mutants", "--again"], "--again is for --resume and --tell"),
        (["mutants", "--with", "S23"], "--with and --tries are for systematic mutants"),
        (["mutants", "--kernel", "points-6.1", "--no-control"], "--file and --no-control are for mistakes by hand"),
        (["mutants", "--allow-unsupported", "S999", "TOKEN_ZERO"], "S999: there is no such scenario"),
        (["validate", "-k", "debian-6.1", "--baseline", "run", "--variant", "noio"], "--variant and --fixes are of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_an_option_that_would_change_nothing_is_refused(
    words: list[str], told: str, tmp_path: Path, called: Called
) -> None:
    for name in ("lab.toml", "ca.pem", "key.pem", "f.toml"):
        (tmp_path / name).write_text("")
    before = set(tmp_path.iterdir())
    assert told in one_message(called(*words), 2)
    assert set(tmp_path.iterdir()) == before
