"""Peers that send what they must not: every fault ends everybody's run, in time, with party and step named."""

import json
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import (
    F127,
    AgreementError,
    DataError,
    Party,
    PeerError,
    RangeError,
    SottovoceError,
    agree,
    is_negative,
    mask,
    matmul,
    multiply,
    open_,
    opening,
    sigmoid,
    truncate,
)
from mpc.inputs import Header
from mpc.preprocessing import serve
from mpc.preprocessing.permutations import Move
from mpc.preprocessing.requests import LEAVE, parse_request
from mpc.preprocessing.serve import field_named
from mpc.prg import Prg
from mpc.words import W64
from tests.mpc.support import Message, Run, run, shares_of

SECRET = 9123.456_78125  # of which no digits may show
DIGITS = re.compile(r"9123\.?4|45678|9\.123")


async def program(party: Party, _: Any) -> Any:
    """One of each: inputs, terms, products, truncation, sigmoid, comparison, openings of both kinds."""
    x, y = await shares_of(party, [np.full(3, SECRET), np.full(3, -SECRET)], 2.0**14)
    await agree(party, "terms", "the same")
    z = await truncate(party, await multiply(party, x, y))
    await matmul(party, await mask(party, x), y)
    p = await sigmoid(party, z.scaled_down(24))
    negative = await is_negative(party, x)
    long = await truncate(party, x[:1].broadcast_to((9,)).lifted(40))
    await open_(party, await multiply(party.at("long"), x[:1].broadcast_to((9,)).lifted(25), y[0]), to=[1])
    await open_(party, z, p, negative, long)


def faulty(step: str, change: Callable[[Message], list[Message]], frm: int, to: int) -> tuple[Any, list[Message]]:
    """Change the message of one step between two parties; returns the interceptor and what it met."""
    met: list[Message] = []

    def tamper(message: Message) -> list[Message]:
        if re.search(step, message.step) and (message.frm, message.to) == (frm, to) and not met:
            met.append(message)
            return change(message)
        return [message]

    return tamper, met


def data(new: bytes | Callable[[bytes], bytes]) -> Callable[[Message], list[Message]]:
    return lambda m: [m._replace(data=new(m.data) if callable(new) else new)]


CHANGES: dict[str, Callable[[Message], list[Message]]] = {
    "missing": lambda m: [],
    "empty": data(b""),
    "shorter": data(lambda d: d[:-1]),
    "longer": data(lambda d: d + b"\0"),
    "twice as long": data(lambda d: d + d),
    "repeated": lambda m: [m, m],
    "another step": lambda m: [m._replace(step=m.step + "x")],
}
PRIME = F127.modulus.to_bytes(16, "little")
NOT_CANONICAL: dict[str, Callable[[Message], list[Message]]] = {
    "all bits": data(lambda d: b"\xff" * len(d)),
    "the prime": data(lambda d: PRIME + d[16:]),
    "the prime at the end": data(lambda d: d[:-16] + PRIME),
    "the top bit": data(lambda d: d[:-1] + bytes([d[-1] | 0x80])),
}


def no_secret_shows(done: Run) -> None:
    for outcome in [*done.outcomes, done.dealer]:
        if isinstance(outcome, BaseException):
            text = "".join(traceback.format_exception_only(outcome)) + repr(outcome)
            chained: BaseException | None = outcome
            while chained is not None:
                text += str(chained)
                chained = chained.__cause__ or chained.__context__
            assert not DIGITS.search(text)
    assert not any(DIGITS.search(repr(party)) for party in done.parties)
    assert not any(b"9123.4" in m.data for m in done.log)


def ends(done: Run, receiver: int, frm: int, step: str) -> None:
    """The receiver names sender and step; all others end, too, and nobody blames one who is not there."""
    at_receiver = done.dealer if receiver == len(done.outcomes) else done.outcomes[receiver]
    assert isinstance(at_receiver, PeerError | AgreementError), at_receiver
    if isinstance(at_receiver, PeerError):
        assert at_receiver.rank == frm
        assert str(frm) in str(at_receiver) or "dealer" in str(at_receiver)
        assert at_receiver.step
    for outcome in done.outcomes:
        assert isinstance(outcome, SottovoceError), outcome
    no_secret_shows(done)


@pytest.fixture(autouse=True)
def openings_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of nine elements are long here, so that both ways of opening are tried."""
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 8 * 16)


@pytest.fixture(autouse=True)
def logs_hold_no_secret(caplog: pytest.LogCaptureFixture) -> Any:
    with caplog.at_level(logging.DEBUG):
        yield
    assert not DIGITS.search(caplog.text)


# step, sender, receiver, preprocessing, how many bytes an element has (0: it is no array of elements)
STEPS: list[tuple[str, int, int, str, int]] = [
    ("join/hello", 1, 0, "prss", 0),
    ("join/set 0-2", 0, 2, "prss", 0),
    ("join/dealer", 3, 1, "dealer", 0),
    ("^share/header", 0, 2, "prss", 0),
    ("/agree on terms", 1, 2, "dealer", 0),
    ("^/multiply", 2, 1, "dealer", 16),
    ("^/truncate", 0, 1, "prss", 16),
    ("^/mask", 1, 0, "prss", 16),
    ("^/matmul", 0, 2, "dealer", 16),
    ("^/sigmoid", 2, 0, "dealer", 16),
    ("^waves/split", 0, 2, "prss", 16),
    ("compare/mask", 1, 2, "dealer", 16),
    ("compare/generate", 2, 1, "prss", 8),
    ("compare/carry", 0, 1, "dealer", 8),
    ("compare/convert", 1, 0, "prss", 8),
    ("signs/split", 0, 2, "prss", 16),
    ("long/multiply#1.1$", 0, 1, "dealer", 16),
    ("long/multiply#1.1s$", 1, 2, "prss", 16),
    ("^/open to", 2, 1, "prss", 16),
    ("^/open#", 0, 1, "dealer", 16),
    ("correction 0.0", 3, 2, "dealer", 16),
    ("correction 2.0", 3, 2, "dealer", 16),
    ("request 1$", 2, 3, "dealer", 0),
]


@pytest.mark.parametrize(("step", "frm", "to", "preprocessing", "width"), STEPS, ids=[s[0] + " " + s[3] for s in STEPS])
@pytest.mark.parametrize("change", CHANGES)
def test_messages_that_are_not_as_they_should_be(
    step: str, frm: int, to: int, preprocessing: str, width: int, change: str
) -> None:
    tamper, met = faulty(step, CHANGES[change], frm, to)
    done = run(program, preprocessing=preprocessing, tamper=tamper)
    assert met
    if change == "repeated":  # who waits for the sender hears of it first; in the end all do
        assert all(f"party {frm} sent a second message" in str(outcome) for outcome in done.outcomes)
        no_secret_shows(done)
    else:
        ends(done, to, frm, step)


ELEMENTS = [s for s in STEPS if s[4] == 16]


@pytest.mark.parametrize(
    ("step", "frm", "to", "preprocessing", "width"), ELEMENTS, ids=[s[0] + " " + s[3] for s in ELEMENTS]
)
@pytest.mark.parametrize("change", NOT_CANONICAL)
def test_elements_that_are_not_canonical(
    step: str, frm: int, to: int, preprocessing: str, width: int, change: str
) -> None:
    tamper, met = faulty(step, NOT_CANONICAL[change], frm, to)
    done = run(program, preprocessing=preprocessing, tamper=tamper)
    assert met
    ends(done, to, frm, step)
    fault = done.outcomes[to]
    assert isinstance(fault, PeerError)
    assert met[0].step.split(".")[0] in fault.step
    assert "canonical" in str(fault)


# ---- joining ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        b"",
        b"[]",
        b"null",
        b'[2,"prss",3]',
        b'[1,"dealer",3]',
        b'[1,"prss",4]',
        b'[1e999,"prss",3]',
        b'[1,"prss",1e999]',
        b"[1,{},3]",
        b'{"a":1,"b":2,"c":3}',
        b"\xff\xfe",
        b"[" * 900,
        b'[1,"prss",3] ',
        b'[NaN,"prss",3]',
    ],
)
def test_hellos(terms: bytes) -> None:
    tamper, _ = faulty("join/hello", data(lambda d: d[:32] + terms), 2, 0)
    done = run(program, preprocessing="prss", tamper=tamper)
    assert isinstance(done.outcomes[0], AgreementError)
    assert "party 2 joins with" in str(done.outcomes[0])
    assert all(isinstance(outcome, SottovoceError) for outcome in done.outcomes)


def test_different_preprocessings() -> None:
    done = run(program, preprocessings=["prss", "dealer", "prss"])
    assert isinstance(done.outcomes[0], AgreementError)
    assert "preprocessing dealer" in str(done.outcomes[0])
    assert "all must run the same study" in str(done.outcomes[1])
    assert isinstance(done.dealer, PeerError)


@pytest.mark.parametrize(
    ("parties", "preprocessing", "words"),
    [
        (2, "prss", "use 'ot', or 'dealer'"),
        (8, "prss", "use 'ot', or 'dealer'"),
        (1, "dealer", "two parties"),
        (1, "ot", "two parties"),
        (3, "none", "one of dealer, prss, ot"),
    ],
)
def test_preprocessings_that_do_not_fit(parties: int, preprocessing: str, words: str) -> None:
    done = run(program, parties=parties, preprocessing=preprocessing)
    assert all(isinstance(outcome, ValueError) and words in str(outcome) for outcome in done.outcomes)
    assert not [m for m in done.log if m.frm < parties]


# ---- headers ----------------------------------------------------------------------------------------------------

GOOD = ([3], 24, "274877906944", "F127")


def header(**changes: Any) -> bytes:
    parts = dict(zip(("shape", "scale", "magnitude", "field"), GOOD, strict=True)) | changes
    return json.dumps(list(parts.values())).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"[1,2,3,4]",
        b"\xff\xff",
        b"[" * 1000,
        b"null",
        b'"abcd"',
        header(shape=3),
        header(shape=[-1]),
        header(shape=[1.0]),
        header(shape=["3"]),
        header(shape=[True]),
        header(shape=[1] * 9),
        header(shape=[1 << 40]),
        header(shape=[1 << 20] * 3),
        header(shape=None),
        header(scale=-1),
        header(scale=128),
        header(scale="24"),
        header(scale=24.0),
        header(magnitude=5),
        header(magnitude="-5"),
        header(magnitude="1e3"),
        header(magnitude="9" * 100),
        header(magnitude=None),
        header(field=None),
        header(field=["F127"]),
        header(field="F127\n[ERROR] forged"),
        header(field="x" * 500),
        header(field="\u202eF127"),
        json.dumps([*GOOD, 5]).encode(),
    ],
    ids=lambda c: c[:40].decode("latin1"),
)
def test_headers_that_are_none(content: bytes) -> None:
    tamper, met = faulty("^share/header", data(content), 0, 1)
    done = run(program, preprocessing="prss", tamper=tamper)
    assert met
    fault = done.outcomes[1]
    assert isinstance(fault, PeerError)
    assert (fault.rank, fault.step) == (0, "share/header#1")
    assert "header" in str(fault)
    ends(done, 1, 0, "header")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [4]},
        {"shape": []},
        {"shape": [3, 1]},
        {"scale": 0},
        {"scale": 23},
        {"scale": 127},
        {"magnitude": "274877906945"},
        {"magnitude": "0"},
        {"magnitude": "9" * 99},
        {"field": "F61"},
        {"field": "GF(5)"},
        {"field": ""},
    ],
    ids=str,
)
def test_headers_that_say_something_else(changes: dict[str, Any]) -> None:
    tamper, _ = faulty("^share/header", data(header(**changes)), 0, 1)
    done = run(program, preprocessing="prss", tamper=tamper)
    assert isinstance(done.outcomes[1], AgreementError)
    assert "party 0" in str(done.outcomes[1])
    ends(done, 1, 0, "header")


def test_a_header_goes_there_and_back() -> None:
    for shape in [(), (3,), (0, 5), (1, 2, 3, 4, 5, 6, 7, 8)]:
        ours = Header(shape, 24, F127.half, "F127")
        assert Header.from_bytes(ours.to_bytes()) == ours
        assert Header.from_bytes(memoryview(ours.to_bytes())) == ours


# ---- requests ---------------------------------------------------------------------------------------------------


def request(**changes: Any) -> bytes:
    """A request for a product of two masks of three elements; the changes say what is wrong with it."""
    base = [
        "",
        changes.get("position", 0),
        changes.get("field", "F127"),
        changes.get("shape", [3]),
        changes.get("bits", 0),
    ]
    base[0] = changes.get("path", "")
    term = [base, changes.get("structures", []), changes.get("factor", "1")]
    content = [
        changes.get("kind", "product"),
        changes.get("a", [term]),
        changes.get("b", [term]),
        changes.get("operation", "multiply"),
        changes.get("place", ""),
        changes.get("pad", 0),
    ]
    return json.dumps(content).encode()


BASE = ["", 0, "F127", [3], 0]
WAVES = ["waves", [[BASE, [], "1"]], 64, [1, 3], 40, "", 0]


def waves(**changes: Any) -> bytes:
    keys = ("kind", "mask", "period", "harmonics", "scale", "path", "pad")
    return json.dumps(list((dict(zip(keys, WAVES, strict=True)) | changes).values())).encode()


BAD_REQUESTS = [
    b"",
    b"leavex",
    b"leav",
    b"null",
    b"[]",
    b"{}",
    b"[1]",
    b'["product"]',
    b"\xff",
    b"[" * 5000,
    b'["other",1,2,3,4,5]',
    b"[[],1]",
    request(operation="divide"),
    request(operation=None),
    request(position=-16),
    request(position=8),
    request(position=1.5),
    request(position=1 << 60),
    request(field="F128"),
    request(field="GF(4)"),
    request(field="GF(99999999999)"),
    request(field="GF(x)"),
    request(field=5),
    request(shape=[-1]),
    request(shape=[1 << 31]),
    request(shape=3),
    request(shape=[2] * 9),
    request(shape=[1 << 16, 1 << 16]),
    request(bits=-1),
    request(bits=127),
    request(bits=1000),
    request(bits="5"),
    request(path=5),
    request(path="x" * 401),
    request(place=None),
    request(pad=8),
    request(pad=-16),
    request(pad="0"),
    request(factor="x"),
    request(factor=1),
    request(factor="9" * 70),
    request(factor=""),
    request(factor="--1"),
    request(a=[]),
    request(a=[[BASE, [], "1"]] * 9),
    request(a=5),
    request(a=[[BASE]]),
    request(a=[[]]),
    request(structures=5),
    request(structures=[["reshape", [4]]]),
    request(structures=[["reshape", [-1]]]),
    request(structures=[["slice", [0]]]),
    request(structures=[["row", [3]]]),
    request(structures=[["row", []]]),
    request(structures=[["rows", [0]]]),
    request(structures=[["transpose", []]]),
    request(structures=[["shift", [127]]]),
    request(structures=[["shift", [-1]]]),
    request(structures=[["shift", [1, 2]]]),
    request(structures=[[]]),
    request(structures=[["reshape", [3]]] * 33),
    request(structures=[[["reshape"], [3]]]),
    request(operation="matmul", shape=[2, 3]),
    request(operation="matmul", shape=[]),
    request(a=[[["", 0, "F61", [3], 0], [], "1"]]),
    request(a=[[BASE, [], "1"], [["", 0, "F61", [3], 0], [], "1"]]),
    request(a=[[BASE, [], "1"], [["", 0, "F127", [4], 0], [], "1"]]),
    request(field="W64", operation="matmul"),
    request(field="W64", factor="2"),
    waves(period=0),
    waves(period=1 << 31),
    waves(period=-1),
    waves(harmonics=5),
    waves(harmonics=[-1]),
    waves(harmonics=[1 << 16]),
    waves(harmonics=["1"]),
    waves(harmonics=[1] * 5000),
    waves(scale=-1),
    waves(scale=64),
    waves(scale=None),
    waves(mask=[]),
    waves(pad=4),
    waves(mask=[[["", 0, "W64", [3], 0], [], "1"]]),
    waves(mask=[[["", 0, "GF(5)", [3], 0], [], "1"]]),
    json.dumps(["bits", [[BASE, [], "1"]], -1, "", 0]).encode(),
    json.dumps(["bits", [[BASE, [], "1"]], 128, "", 0]).encode(),
    json.dumps(["bits", [[BASE, [], "1"]], 5, "", 0, 1]).encode(),
    json.dumps(["signs", [[BASE, [], "1"]], "F127", 5, "", 0]).encode(),
    json.dumps(["signs", [[["", 0, "W64", [1], 0], [], "1"]], "F0", 5, "", 0]).encode(),
    json.dumps(["signs", [[["", 0, "W64", [1], 0], [], "1"]], None, 5, "", 0]).encode(),
    request(path="\ud800"),
    b"x" * 20_000,
]


@pytest.mark.parametrize("content", BAD_REQUESTS, ids=lambda c: c[:70].decode("latin1"))
def test_requests_that_no_program_makes(content: bytes) -> None:
    tamper, met = faulty("request 0$", data(content), 2, 3)
    done = run(program, tamper=tamper)
    assert met
    assert isinstance(done.dealer, PeerError), done.dealer
    assert (done.dealer.rank, done.dealer.step) == (2, "request 0")
    assert len(str(done.dealer)) < 200
    ends(done, 3, 2, "request")


def a_dealer(size: int = 2) -> serve.Dealer:
    sources = [Prg(bytes([k]) * 32) for k in range(size)]
    return serve.Dealer(size, lambda rank, label, position: sources[rank].stream(label, position))


def term(field: str, shape: list[int], *structures: list[Any]) -> list[Any]:
    return [["", 0, field, shape, 0], list(structures), "1"]


WIDE, HIGH = [1 << 18, 1], [1, 1 << 18]
# Short to ask for, and more than is dealt at once, or dear in another way.
TOO_MUCH: dict[str, tuple[list[Any], str]] = {
    "a mask": (["product", [term("F127", [1 << 30])], [term("F127", [1])], "multiply", "q", 0], "too large"),
    "an outer product": (["product", [term("F61", WIDE)], [term("F61", HIGH)], "multiply", "q", 0], "too large"),
    "an outer product of matrices": (
        ["product", [term("F61", WIDE)], [term("F61", HIGH)], "matmul", "q", 0],
        "too large",
    ),
    "a sum of a row and a column": (
        ["product", [term("F61", WIDE), term("F61", HIGH)], [term("F61", [1])], "multiply", "q", 0],
        "several shapes",
    ),
    "waves": (["waves", [term("F61", [1 << 20])], 64, [1] * 4096, 40, "q", 0], "too large"),
    "signs of one word": (["signs", [term("W64", [1])], "F61", 65, "q", 0], "more signs than bits"),
    "many signs of one word": (["signs", [term("W64", [1])], "F61", 10**7, "q", 0], "more signs than bits"),
    "a long permutation": (["move", [["p", 0, 1 << 30], None], "F127", [1 << 30], "q", 0, 0], "too large"),
    "a permutation of many bits": (["move", [["p", 0, 64], None], "W64", [1 << 28, 1], "q", 0, 0], "too large"),
    "a digit of many bits": (
        ["product", [term("R32", [16, 1], ["digits", []])], [term("R32", [16, 1])], "multiply", "q", 0],
        "not an operation",
    ),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_requests_for_too_much(what: str) -> None:
    """A dealer refuses them before it computes anything, and names who asked."""
    content, words = TOO_MUCH[what]
    asked = json.dumps(content).encode()
    with pytest.raises(ValueError, match=words):
        a_dealer().answer(parse_request(asked))
    tamper, met = faulty("request 0$", data(asked), 2, 3)
    done = run(program, tamper=tamper)
    assert met
    assert isinstance(done.dealer, PeerError)
    ends(done, 3, 2, "request")


def test_what_is_just_small_enough_is_dealt() -> None:
    for content in [
        ["signs", [term("W64", [2])], "F61", 128, "a", 0],
        ["product", [term("R32", [15, 1], ["digits", []])], [term("R32", [15, 1])], "multiply", "b", 0],
        ["move", [["p", 0, 64], None], "W64", [3, 1], "c", 0, 0],
    ]:
        assert a_dealer().answer(parse_request(json.dumps(content).encode()))[1].size


def test_a_dealer_without_memory_blames_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(serve.Dealer, "answer", answer)
    done = run(program)
    assert isinstance(done.dealer, PeerError)
    assert (done.dealer.rank, done.dealer.step) == (2, "request 0")


def test_a_program_that_wants_too_much_of_a_dealer_is_told_so() -> None:
    """All parties alike, before anything is made or asked for."""

    async def greedy(party: Party, _: Any) -> None:
        wide, high = [
            await party.preprocessing.uniform(party, F127, tuple(shape)) for shape in ([1 << 15, 1], [1, 1 << 15])
        ]
        with pytest.raises(ValueError, match="work in parts"):
            _ = await party.preprocessing.product(party, wide, high, "multiply")
        with pytest.raises(ValueError, match="work in parts"):
            await party.preprocessing.uniform(party, F127, (1 << 30,))
        with pytest.raises(ValueError, match="work in parts"):
            await party.preprocessing.bounded(party, F127, (1 << 30,), 40)
        permutation = await party.preprocessing.permutation(party, 64)
        with pytest.raises(ValueError, match="work in parts"):
            await party.preprocessing.carriage(party, Move(apply=permutation), W64, (1 << 28, 1))

    done = run(greedy)
    done.results  # noqa: B018
    assert not [m for m in done.sent if m.step.startswith("request")]


def test_a_pad_is_given_out_once() -> None:
    """Two products under one pad would give the last party their difference."""
    first: list[bytes] = []

    def tamper(message: Message) -> list[Message]:
        if message.step == "request 0":
            first.append(message.data)
        if message.step == "request 1":
            return [message._replace(data=first[0])]
        return [message]

    async def twice(party: Party, _: Any) -> None:
        x = party.constant(np.arange(3))
        await multiply(party, x, x)
        await multiply(party, x, x)

    done = run(twice, tamper=tamper)
    assert isinstance(done.dealer, PeerError)
    assert (done.dealer.rank, done.dealer.step) == (2, "request 1")


def test_honest_requests_are_understood() -> None:
    """What the interceptor met above was refused for what was changed, not for its form."""
    assert parse_request(request()) is not None
    assert parse_request(waves()) is not None
    done = run(program)
    done.results  # noqa: B018
    sent = [m.data for m in done.log if m.step.startswith("request") and m.data != LEAVE]
    assert {json.loads(m)[0] for m in sent} == {"product", "waves", "bits", "signs"}
    for message in sent:
        assert parse_request(message).to_bytes() == message
    assert field_named("GF(7)").modulus == 7


@pytest.mark.parametrize("goodbye", [b"", b"gone", b"leavex"])
def test_goodbyes(goodbye: bytes) -> None:
    tamper, met = faulty("^leave$", data(goodbye), 0, 3)
    done = run(program, tamper=tamper)
    assert met
    assert isinstance(done.dealer, PeerError)
    assert done.dealer.rank == 0


# ---- programs that fail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("error", [RuntimeError, DataError, KeyError])
def test_a_program_that_fails_stops_all(preprocessing: str, error: type[Exception]) -> None:
    async def failing(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.full(3, SECRET)], 2.0**14)
        if party.rank == 1:
            raise error("in the middle") if error is DataError else error(f"with data: {SECRET}")
        return await open_(party, await multiply(party, x, x), to=[])

    done = run(failing, preprocessing=preprocessing)
    assert isinstance(done.outcomes[1], error)
    for rank in (0, 2):
        fault = done.outcomes[rank]
        assert isinstance(fault, PeerError)
        assert "party 1 stopped" in str(fault) or fault.rank != 1
        assert not DIGITS.search(str(fault))


def test_a_party_that_never_says_anything() -> None:
    tamper: Any = lambda m: [] if m.frm == 1 else [m]  # noqa: E731
    done = run(program, preprocessing="prss", tamper=tamper, timeout_seconds=0.2)
    for rank in (0, 2):
        assert isinstance(done.outcomes[rank], PeerError)
    assert any("party 1 sent nothing for 0.2 s at step 'join/hello'" in str(o) for o in done.outcomes)


def test_what_is_printed_shows_no_value() -> None:
    """repr() of everything that holds a summand, and of errors about bounds."""

    async def printing(party: Party, _: Any) -> list[str]:
        (x,) = await shares_of(party, [np.full(3, SECRET)], 2.0**14)
        kept = await mask(party, x)
        product = await multiply(party, x, kept)
        shown = [
            x,
            kept,
            product,
            kept.masked.mask if kept.masked else None,
            party,
            party.transport,
            party.preprocessing,
        ]
        with pytest.raises(RangeError) as caught:
            await multiply(party, product.lifted(60), product)
        return [*map(repr, shown), str(caught.value)]

    for preprocessing in ("dealer", "prss"):
        for texts in run(printing, preprocessing=preprocessing).results:
            assert not any(DIGITS.search(text) or re.search(r"\d{12}", text) for text in texts), texts
