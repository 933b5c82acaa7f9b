"""A relay as a process, with a certificate of a private authority."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.consortium.nodes import SOTTOVOCE, environment, eventually

# Python 3.13 takes an authority's certificate only if it says that it is one.
AUTHORITY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def web_certificate(folder: Path, names: Iterable[str]) -> None:
    """Write ``certificate.pem`` and ``key.pem`` of a server with these host names or addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a relay")])
    now = datetime.datetime.now(datetime.UTC)
    known: list[x509.GeneralName] = []
    for name in names:
        try:
            known.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            known.append(x509.DNSName(name))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(AUTHORITY, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@dataclass
class RelayProcess:
    """``sottovoce relay``, while the block lasts.

    Attributes
    ----------
    folder : Path
        Holds its certificate and its log.
    listen : str
        ``host:port``.
    consortium : Path
        Whom it serves.
    before : sequence of str
        What the command begins with.
    program : sequence of str
        The relay itself, or one that tampers.
    """

    folder: Path
    listen: str
    consortium: Path
    before: Sequence[str] = ()
    program: Sequence[str] = (*SOTTOVOCE, "relay")
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RelayProcess:
        with (self.folder / "relay.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *self.before,
                    *self.program,
                    *("--listen", self.listen, "--consortium", str(self.consortium)),
                    *("--certificate", str(self.folder / "certificate.pem"), "--key", str(self.folder / "key.pem")),
                ],
                env=environment(PYTHONWARNINGS="default"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            eventually(lambda: "listening on port" in self.said(), lambda: f"the relay listens; it said: {self.said()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise

    def said(self) -> str:
        """What it has logged."""
        return (self.folder / "relay.log").read_text("utf-8", "replace")
