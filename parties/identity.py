"""Who a node is: an Ed25519 key and its self-signed certificate, pinned by the others.

There is no certificate authority. A consortium exchanges certificates once, each party trusts exactly
that list, and after every handshake the certificate that was presented is compared, byte for byte,
with the one of the rank it must be. Connections are TLS 1.3 only, and both sides show a certificate.

Ed25519 and not P-256: both take 1.0 ms of computing for a handshake of two (OpenSSL 3.0, mutual), and
an Ed25519 signature needs no randomness of its own that could be bad.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import os
import secrets
import ssl
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties.errors import IdentityError

THROW_AWAY_LIFETIME = datetime.timedelta(days=3)
# What the library says of certificates that break the rules (RFC 5280), beside ValueError.
_WRONG = (
    Warning,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and the certificate made of it.

    Attributes
    ----------
    certificate : bytes
        DER; public. This is what the others pin.
    key : bytes
        PEM (PKCS #8) of the private key; it never shows in ``repr``.
    """

    certificate: bytes
    key: bytes = field(repr=False)


def make_identity(name: str, lifetime: datetime.timedelta = THROW_AWAY_LIFETIME) -> Identity:
    """Make a new key and its self-signed certificate.

    Parameters
    ----------
    name : str
        Common name, for people who look at the certificate; nothing depends on it.
    lifetime : datetime.timedelta
        How long the certificate is valid from now on; it begins an hour early for clocks that lag.
    """
    key = Ed25519PrivateKey.generate()
    public_key = key.public_key()
    # OpenSSL looks pinned certificates up by subject, and mistakes one for another of the same subject.
    unique = x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), unique])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + lifetime)
        # Not an authority: a pinned certificate can vouch for nobody but itself.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host_name_of_hash(_key_hash(public_key)))]),
            critical=False,
        )
        .sign(key, None)
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.DER),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def host_name(certificate: bytes) -> str:
    """Return the name under which a peer with this certificate is dialled.

    It is made of the hash of the public key and stands in the certificate, so that the usual check of
    host names stays on and says what we mean: the key is the name. The address is only where to dial.
    The name goes over the network in the clear (SNI); it tells which public key is asked for, no more.

    Raises
    ------
    IdentityError
        If the certificate was not made for that name.
    """
    parsed = _parse(certificate)
    try:
        with strict_certificates():
            name = host_name_of_hash(_key_hash(parsed.public_key()))
            names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except ValueError:
        raise IdentityError("a certificate does not carry the name of its key") from None
    if names.get_values_for_type(x509.DNSName) != [name]:
        raise IdentityError("a certificate does not carry the name of its key")
    return name


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate in hexadecimal, for people to compare by telephone."""
    return hashlib.sha256(certificate).hexdigest()


def server_context(identity: Identity, pinned: Iterable[bytes]) -> ssl.SSLContext:
    """Return the TLS context for being dialled: 1.3 only, a pinned certificate required."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity, pinned)
    context.verify_mode = ssl.CERT_REQUIRED
    # No tickets: a resumed session would not show a certificate again.
    context.num_tickets = 0
    return context


def client_context(identity: Identity, pinned: Iterable[bytes]) -> ssl.SSLContext:
    """Return the TLS context for dialling: 1.3 only, the certificate and its name are checked."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity, pinned)


def presented_certificate(connection: ssl.SSLObject | ssl.SSLSocket | None) -> bytes | None:
    """Return the certificate that the other side of a finished handshake proved to hold, as DER."""
    return None if connection is None else connection.getpeercert(binary_form=True)


def _context(protocol: ssl._SSLMethod, identity: Identity, pinned: Iterable[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    # The trust store is exactly the pinned certificates: the system's authorities are not loaded.
    for certificate in pinned:
        context.load_verify_locations(cadata=certificate)
    with _key_file(identity) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _key_file(identity: Identity) -> Iterator[str]:
    """Lend key and certificate as a file, the only way in which ``ssl`` takes them.

    On Linux the file lies in memory and has no name that others could open; elsewhere it is readable
    by us alone and removed at once.
    """
    content = identity.key + ssl.DER_cert_to_PEM_cert(identity.certificate).encode()
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            _write_all(handle, content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    handle, path = tempfile.mkstemp(prefix="sottovoce-")
    try:
        try:
            _write_all(handle, content)
        finally:
            os.close(handle)
        yield path
    finally:
        os.unlink(path)


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


@contextlib.contextmanager
def strict_certificates() -> Iterator[None]:
    """Take certificates for wrong of which the library only warns: of a negative serial number, of too long a name.

    Raises
    ------
    ValueError
        Whatever is wrong with a certificate that is read in here, or with a part of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            yield
        except _WRONG as wrong:
            raise ValueError(str(wrong)) from None


def parse_certificate(certificate: bytes) -> x509.Certificate:
    """Read a certificate in DER, also somebody else's.

    Raises
    ------
    ValueError
        It is none, or breaks the rules of certificates (RFC 5280).
    """
    with strict_certificates():
        return x509.load_der_x509_certificate(certificate)


def _parse(certificate: bytes) -> x509.Certificate:
    try:
        return parse_certificate(certificate)
    except ValueError:
        raise IdentityError("a pinned certificate is not an X.509 certificate in DER") from None


def _key_hash(public_key: object) -> bytes:
    encode = getattr(public_key, "public_bytes", None)
    if encode is None:
        raise IdentityError("a certificate holds no public key that can be named")
    encoded: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).digest()


def host_name_of_hash(key_hash: bytes) -> str:
    """Return the name of a key (see :func:`host_name`) of which only the SHA-256 hash is at hand."""
    # A DNS label has at most 63 characters: 52 of base32 hold the 256 bits, 64 of hexadecimal do not.
    label = base64.b32encode(key_hash).decode().rstrip("=").lower()
    return f"{label}.sottovoce.invalid"  # .invalid is reserved (RFC 2606) and never resolves
