# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the lab whose private key is none: a run there is a real one, and each of its verdicts is ERROR at
once."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

REASON = "cannot be used as a private key"


def no_machine(folder: Path) -> tuple[str, ...]:
    """The options that name it."""
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (folder / "key").write_text("no key")
    (folder / "lab.toml").write_text(
        f'[box]\naddress = "127.0.0.1"\nuser = "nobody"\nkey = "{folder / "key"}"\nhost_key = "{public}"\n'
    )
    return "--host", "ssh:box", "--lab", str(folder / "lab.toml")
