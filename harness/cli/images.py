# SPDX-License-Identifier: GPL-2.0-or-later
"""apf images: make the images that hosts and guests boot from."""

from __future__ import annotations

import argparse
import sys

from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.cli import COMMANDS, options
from harness.report.terminal import Screen


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "images", help=COMMANDS["images"],
        description="Make what is missing of the host's root file system, the probe guest and the agent.",
    )  # fmt: skip
    p.set_defaults(func=main)


def main(_args: argparse.Namespace) -> int:
    """Build, list."""
    screen = Screen(sys.stdout)
    store = Store(progress=screen.progress)
    host = images.host_image(store, screen.progress)
    made = {
        "host root file system": host.root_ext4,
        "probe guest": images.probe_guest(store),
        "agent": images.agent_zipapp(store),
    }
    for what, path in made.items():
        screen.line(f"{what:<22} {path.stat().st_size / (1 << 20):8.1f} MiB  {path}")
    screen.line(f"{'QEMU in the host':<22} {host.qemu_version}")
    return 0
