# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a virtual host: made once per store, good for nothing outside it (Ed25519)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.artifacts.store import Recipe, Store

_RECIPE = Recipe("ssh-keys", {"version": 1, "type": "ed25519"})


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Paths of the key files, and the host's public key as in known_hosts ("ssh-ed25519 AAAA...")."""

    host_private: Path  # in dropbear's own format
    host_public: str
    client_private: Path  # OpenSSH format, no passphrase
    client_public: str


def host_keys(store: Store) -> HostKeys:
    """The keys of this store, made when there are none yet."""
    folder = store.get(_RECIPE, _make)
    return HostKeys(
        folder / "host",
        (folder / "host.pub").read_text().strip(),
        folder / "client",
        (folder / "client.pub").read_text().strip(),
    )


def _make(folder: Path) -> None:
    folder.chmod(0o700)
    for name, private in (("host", Ed25519PrivateKey.generate()), ("client", Ed25519PrivateKey.generate())):
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(_dropbear(private) if name == "host" else _openssh(private))
        public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public + b"\n")


def _openssh(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _dropbear(private: Ed25519PrivateKey) -> bytes:
    """dropbear's key file: the type's name, then seed and public key as one string (RFC 4251 strings)."""
    seed = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return _string(b"ssh-ed25519") + _string(seed + public)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
