"""Frames: every field survives, every bound is checked, and nothing else than FrameError comes out."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parties.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    MESSAGE_BYTES,
    STEP_BYTES,
    Frame,
    FrameError,
    Hello,
    Kind,
    acknowledging,
    header_size,
    pack_header,
    pack_hello,
    parse,
    parse_hello,
)

STEPS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=STEP_BYTES)
RANKS = st.sampled_from([0, 1, 7, 65535])
SESSION = bytes(range(16))


def packed(payload: bytes = b"", **fields: object) -> bytes:
    usual = {"kind": 2, "sender": 0, "receiver": 1, "session": SESSION, "sequence": 0, "step": b"open#1"}
    given = usual | {"length": len(payload), "offset": 0, "acknowledged": 0} | fields
    return pack_header(**given) + payload  # type: ignore[arg-type]


@given(st.sampled_from(Kind), RANKS, RANKS, st.binary(min_size=16, max_size=16), STEPS, st.binary(max_size=100))
def test_a_frame_survives(kind: Kind, sender: int, receiver: int, session: bytes, step: str, payload: bytes) -> None:
    fields = (kind, sender, receiver, session, 2**64 - 1, step.encode(), 500, 400, 2**64 - 2)
    frame = parse(pack_header(*fields) + payload)
    assert frame[:9] == (kind, sender, receiver, session, 2**64 - 1, step, 500, 400, 2**64 - 2)
    assert bytes(frame.payload) == payload


@given(st.binary(max_size=300))
@example(packed(b"x" * 16))
@example(packed()[:-1])
def test_garbage_is_refused_or_read_within_bounds(data: bytes) -> None:
    try:
        frame = parse(data)
    except FrameError:
        return
    assert len(frame.step) <= STEP_BYTES
    assert frame.offset + len(frame.payload) <= frame.length <= MESSAGE_BYTES


@given(st.integers(0, HEADER_BYTES + 31), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_shows(place: int, flip: int) -> None:
    good = packed(b"0123456789abcdef")
    bad = bytearray(good)
    bad[place] ^= flip
    try:
        assert parse(bytes(bad)) != parse(good)
    except FrameError:
        pass


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "a frame of 0 bytes"),
        (bytes(HEADER_BYTES - 1), "a frame of 63 bytes"),
        (bytes(FRAME_BYTES + 1), "a frame of 262145 bytes"),
        (b"\x01" + packed()[1:], "layout 1"),
        (packed(kind=0), "unknown kind 0"),
        (packed(kind=7), "unknown kind 7"),
        (packed()[:7] + b"\x01" + packed()[8:], "reserved byte"),
        (packed()[:56] + b"\x01" + packed()[57:], "reserved byte"),
        (packed()[:63] + b"\x80" + packed()[64:], "reserved byte"),
        (packed(step=b"s" * 201), "label is too long"),
        (packed()[:6] + b"\xc8" + packed()[7:], "label is too long"),
        (packed(step=b"caf\xe9"), "printable ASCII"),
        (packed(step=b"a\nb"), "printable ASCII"),
        (packed(step=b"a\0b"), "printable ASCII"),
        (packed()[:-1] + b"x", "padding"),
        (packed(length=MESSAGE_BYTES + 1), "too long"),
        (packed(b"xx", length=1), "beyond its message"),
        (packed(b"xx", length=2**32, offset=2**32 - 1), "beyond its message"),
        (packed(b"", length=0, offset=2**64 - 1), "beyond its message"),
    ],
)
def test_each_check_speaks(data: bytes, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        parse(data)


@given(STEPS)
def test_payloads_are_aligned_for_the_kernels(step: str) -> None:
    assert header_size(step.encode()) % 16 == 0
    assert len(packed(step=step.encode())) == header_size(step.encode())


@given(STEPS, st.integers(0, 2**64 - 1))
def test_a_frame_that_is_sent_again_differs_in_what_it_acknowledges(step: str, acknowledged: int) -> None:
    header = packed(step=step.encode(), acknowledged=3)
    again = parse(acknowledging(header, acknowledged))
    assert again == parse(header)._replace(acknowledged=acknowledged)


def hello_frame(payload: bytes, **fields: object) -> Frame:
    return parse(packed(payload, kind=Kind.HELLO, step=b"", **fields))


@given(st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_hello_survives(keeps: bool, number: int, acknowledged: int) -> None:
    hello = Hello(number, acknowledged, b"i" * 16, b"k" * 16, keeps)
    assert parse_hello(hello_frame(pack_hello(hello), sequence=number, acknowledged=acknowledged)) == hello


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (hello_frame(bytes(39)), "no hello"),
        (hello_frame(bytes(41)), "no hello"),
        (hello_frame(bytes(40), length=41), "no hello"),
        (parse(packed(bytes(40))), "no hello"),
        (hello_frame(bytes(32) + b"\x02" + bytes(7)), "reserved"),
        (hello_frame(bytes(39) + b"\x01"), "reserved"),
    ],
)
def test_what_is_no_hello_is_refused(frame: Frame, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        parse_hello(frame)


def test_frozen_bytes() -> None:
    """What goes over the wire does not change by accident."""
    frame = packed(b"\xff", kind=2, sender=1, receiver=2, sequence=3, length=260, offset=4, acknowledged=5)
    assert frame.hex() == (
        "02" "02" "0100" "0200" "06" "00" "000102030405060708090a0b0c0d0e0f"
        "0300000000000000" "0401000000000000" "0400000000000000" "0500000000000000" "0000000000000000"
        "6f70656e2331" "00000000000000000000" "ff"
    )  # fmt: skip
    hello = pack_hello(Hello(7, 8, b"i" * 16, b"k" * 16, True))
    assert hello.hex() == "69" * 16 + "6b" * 16 + "01" + "00" * 7
