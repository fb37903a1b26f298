# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Dask fleet on loopback, with TLS."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.run.fleet_client import FleetAddress
from tests.unit.ports import held_port
from tests.unit.waiting import HANG_S, wait_until


def certificate(folder: Path) -> tuple[Path, Path]:
    """One self-signed certificate that both sides have and trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "apf-test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


class Fleet:
    """A scheduler and two workers of this machine, with TLS; made by start_fleet()."""

    def __init__(self, address: FleetAddress, workers: list[subprocess.Popen[bytes]]) -> None:
        self.address = address
        self.workers = workers

    @property
    def where(self) -> list[str]:
        """The options that name it."""
        address = self.address
        return [
            "--on", address.address, "--tls-ca", str(address.ca), "--tls-cert", str(address.cert),
            "--tls-key", str(address.key),
        ]  # fmt: skip


@contextlib.contextmanager
def start_fleet(folder: Path) -> Iterator[Fleet]:
    """It runs until the context ends."""
    cert, key = certificate(folder)
    tls = ["--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]
    env = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3"}
    with held_port() as port, contextlib.ExitStack() as stack, (folder / "log").open("wb") as log:
        address = FleetAddress(f"tls://127.0.0.1:{port}", cert, cert, key)

        def start(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, *tls], stdout=log, stderr=log, env=env, start_new_session=True,
                cwd=Path(__file__).parents[3],
            )  # fmt: skip
            stack.callback(process.wait, HANG_S)
            stack.callback(process.kill)
            return process

        start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--protocol", "tls")
        workers = [
            start("worker", address.address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--name", f"w{n}",
                  "--local-directory", str(folder / f"w{n}"))
            for n in range(2)
        ]  # fmt: skip
        wait_until(lambda: (folder / "log").read_text().count("Registered to:") == 2, "two workers")
        yield Fleet(address, workers)
