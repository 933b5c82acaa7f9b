"""Reading whom a TLS client asks for: real hellos of OpenSSL, hand-made ones, and anything else."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.identity import client_context, host_name, make_identity
from parties.node.client_hello import MOST_BYTES, HelloError, Incomplete, server_name

NAME = "abcdefgh.sottovoce.invalid"


def real_hello(context: ssl.SSLContext, name: str | None) -> bytes:
    """What OpenSSL sends first."""
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def named(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def message(extensions: bytes | None, *, kind: int = 1) -> bytes:
    """A ClientHello with GREASE (RFC 8701) wherever it may stand."""
    body = b"\x03\x03" + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x0a\x0a\x13\x01") + vector(1, b"\0")
    body += b"" if extensions is None else vector(2, extensions)
    return bytes([kind]) + vector(3, body)


GREASE = extension(0x0A0A, b"") + extension(0x1A1A, b"\0")


def records(data: bytes, size: int = 2**14, version: bytes = b"\x03\x01") -> bytes:
    """Cut a message into records."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16" + version + vector(2, part) for part in parts)


def test_real_clients_name_whom_they_want():
    identity = make_identity("someone")
    name = host_name(identity.certificate)
    assert server_name(real_hello(client_context(identity, [identity.certificate]), name)) == name
    context = ssl.create_default_context()
    assert server_name(real_hello(context, "Some.Where.Example")) == "some.where.example"
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert server_name(real_hello(context, NAME)) == NAME


def test_clients_that_name_nobody():
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(HelloError, match="no name"):
        server_name(real_hello(context, None))
    with pytest.raises(HelloError, match="no name"):
        server_name(records(message(None)))
    with pytest.raises(HelloError, match="no name"):
        server_name(records(message(GREASE)))


def test_name_stands_anywhere_among_the_extensions():
    for extensions in (named(NAME.encode()) + GREASE, GREASE + named(NAME.encode()), named(NAME.upper().encode())):
        assert server_name(records(message(extensions))) == NAME


def test_every_beginning_is_incomplete_and_asks_for_what_helps():
    hello = records(message(GREASE + named(NAME.encode())), 100)
    have = 0
    looks = 0
    while True:
        found = server_name(hello[:have])
        looks += 1
        if not isinstance(found, Incomplete):
            break
        assert have < found.needed <= len(hello)
        have = found.needed
    assert found == NAME
    assert looks <= 3 * 2 + 1  # header, message, rest of each record
    for end in range(len(hello)):
        assert isinstance(server_name(hello[:end]), Incomplete)
    assert server_name(hello + b"what comes after is not looked at") == NAME


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "not TLS"),
        (b"\x16\x02\x00\x00\x05", "not TLS"),
        (b"\x16\x03\x01\x00\x00", "not TLS"),
        (b"\x15\x03\x01\x00\x02\x01\x00", "not TLS"),
        (b"\x80\x2e\x01\x03\x01", "not TLS"),
        (b"\xff" * 20, "not TLS"),
        (records(message(named(b"x"), kind=2)), "not TLS"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "too long"),
        (records(b"\x01" + (MOST_BYTES - 3).to_bytes(3, "big")), "too long"),
        (records(message(named(NAME.encode())), 5), "too many pieces"),
        (records(message(named(b""))), "no name"),
        (records(message(named(b"a\0b"))), "no name"),
        (records(message(named("\u00fc.example".encode()))), "no name"),
        (records(message(named(b"a b"))), "no name"),
        (records(message(named(b"a" * 256))), "no name"),
        (records(message(named(b"x", kind=1))), "no name"),
        (records(message(named(b"a") + named(b"b"))), "two names"),
        (records(message(extension(0, vector(2, b"\0\0\1a\0\0\1b")))), "two names"),
        (records(message(extension(0, b"\xff\xff\0\0\1a"))), "malformed"),
        (records(message(extension(0, b""))), "malformed"),
        (records(message(named(b"a") + b"\0")), "malformed"),
        (records(b"\x01" + vector(3, b"\x03\x03" + bytes(32) + b"\xff")), "malformed"),
        (records(b"\x01" + vector(3, b"")), "malformed"),
    ],
)
def test_what_is_no_hello_is_refused(data: bytes, why: str):
    with pytest.raises(HelloError, match=why):
        server_name(data)


def test_no_hello_takes_more_than_the_bound():
    """The longest that is read fits; whoever would need more is refused as soon as that is known."""
    filling = MOST_BYTES - len(records(message(named(NAME.encode()) + extension(21, b""))))
    hello = records(message(named(NAME.encode()) + extension(21, bytes(filling))))
    assert len(hello) == MOST_BYTES
    assert server_name(hello) == NAME
    with pytest.raises(HelloError, match="too long"):
        server_name(records(message(named(NAME.encode()) + extension(21, bytes(filling + 1))))[:20])


@given(st.binary(max_size=200), st.booleans())
def test_garbage_never_does_anything_else(data: bytes, framed: bool):
    try:
        found = server_name(records(data) if framed else data)
    except HelloError:
        return
    assert isinstance(found, str | Incomplete)
    if isinstance(found, Incomplete):
        assert found.needed > len(records(data) if framed else data)


@given(st.data())
def test_altered_hellos_never_do_anything_else(data: st.DataObject):
    hello = bytearray(records(message(GREASE + named(NAME.encode())), data.draw(st.integers(20, 300))))
    for _ in range(data.draw(st.integers(1, 4))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = server_name(bytes(hello))
    except HelloError:
        return
    assert isinstance(found, Incomplete) or found.isprintable()
