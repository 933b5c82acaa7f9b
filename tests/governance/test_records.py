"""Records: nobody can say anything for another member, or anything else than was signed."""

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.governance import records
from parties.governance.canonical import canonical
from parties.governance.cards import make_card
from parties.governance.consortium import join
from parties.governance.errors import RecordError
from parties.governance.keys import NodeKey, generate
from parties.governance.records import Record, check, make, parse, proposed
from parties.governance.studies import Study, parse_study
from parties.identity import make_identity
from tests.governance.test_studies import PROGRAM, with_program
from tests.governance.world import NOW, STUDY, World, make_world

WORKER = base64.b64encode(make_identity("worker").certificate).decode()
HEAD = {"number": 7, "hash": "ab" * 32}
BODIES: dict[str, dict[str, Any]] = {
    "approval": {},
    "rejection": {"reason": "The purpose is not ours."},
    "cancellation": {"reason": "Enough."},
    "run": {"attempt": 1, "dry": True},
    "ready": {
        "attempt": 1,
        "certificate": WORKER,
        "dry": False,
        "nonce": "cd" * 32,
        "version": "0.2.0",
        "fingerprint": "AAAA-BBBB",
    },
    "outcome": {
        "attempt": 2,
        "ok": False,
        "error_type": "PeerError",
        "text": "city was away for 60 s",
        "culprit": "city",
        "retry": True,
        "result": None,
        "audit": HEAD,
    },
}
GOOD = {"attempt": 1, "ok": True, "result": "ef" * 32, "audit": HEAD}


def record(world: World, kind: Any, body: dict[str, Any] | None = None, author: str = "north", **more: Any) -> Record:
    body = BODIES[kind] if body is None else body
    study = more.pop("study", "12" * 32)
    return make(world.keys[author], "heart", author, kind, study, body, NOW, **more)


def proposal(world: World, study: Study, program: str | None = None, author: str = "north") -> Record:
    return record(world, "proposal", {"study": study.plain(), "program": program}, author, study=study.hash)


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_is_made_parsed_and_checked(world: World, kind: str) -> None:
    one = record(world, kind)
    assert parse(one.encode()) == one
    assert parse(json.loads(one.encode())) == one
    assert check(one, world.consortium) == world.consortium.member("north")
    assert one.time == "2030-06-01T12:00:00Z"
    assert len(one.id) == 64
    assert one.id == parse(one.encode()).id
    assert "signature" not in repr(one)


def test_a_proposal_carries_its_study(world: World, study: Study) -> None:
    one = proposal(world, study)
    check(parse(one.encode()), world.consortium)
    assert proposed(one) == (study, None)
    own = parse_study(with_program())
    with_text = proposal(world, own, PROGRAM)
    check(parse(with_text.encode()), world.consortium)
    assert proposed(with_text) == (own, PROGRAM)


def test_a_frozen_record() -> None:
    """Its signed bytes and its id, from parts that are written down here."""
    one = Record(
        "heart", "north", "run", "12" * 32, {"attempt": 1, "dry": False}, "2030-06-01T12:00:00Z", "ab" * 32, ""
    )
    assert canonical(one._content()) == (
        b'{"author":"north","body":{"attempt":1,"dry":false},"consortium":"heart","format":1,"key":"'
        + b"ab" * 32
        + b'","kind":"run","study":"'
        + b"12" * 32
        + b'","time":"2030-06-01T12:00:00Z"}'
    )
    assert one.id == "23cf33c0383a92e5eb4632fc178a46f92c6b12deacc232e4b0e9fd26230135a8"


# ---- alterations ----------------------------------------------------------------------------------

WORLD = make_world()
SAMPLES = [record(WORLD, kind).encode() for kind in BODIES] + [
    proposal(WORLD, parse_study(STUDY)).encode(),
    record(WORLD, "outcome", GOOD).encode(),
]


@settings(max_examples=300)
@given(st.data())
def test_a_record_with_any_byte_altered_is_refused(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(SAMPLES)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordError):
        check(parse(bytes(raw)), WORLD.consortium)


@given(st.sampled_from(SAMPLES), st.data())
def test_a_record_that_is_cut_or_goes_on_is_refused(raw: bytes, data: st.DataObject) -> None:
    with pytest.raises(RecordError):
        parse(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(RecordError):
        parse(raw + data.draw(st.binary(min_size=1, max_size=5)))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError) as error:
        parse(data)
    assert str(error.value).isprintable()


REPLAYS: list[tuple[str, dict[str, Any]]] = [
    ("another study", {"study": "34" * 32}),
    ("another kind without a body", {"kind": "approval"}),
    ("another author", {"author": "city"}),
    ("another time", {"time": "2030-06-01T12:00:01Z"}),
    ("another body", {"body": {"reason": "The purpose is ours."}}),
    ("another kind with the same body", {"kind": "cancellation"}),
]


@pytest.mark.parametrize(("what", "changes"), REPLAYS, ids=[what for what, _ in REPLAYS])
def test_a_statement_cannot_be_replayed_as(world: World, what: str, changes: dict[str, Any]) -> None:
    """With all fields well-formed, it is the signature alone that stands in the way."""
    one = record(world, "rejection")
    altered = replace(one, **changes)
    if changes.get("kind") == "approval":
        altered = replace(altered, body={})
    altered = parse(altered.encode())
    with pytest.raises(RecordError, match=r"the signature does not fit|not with the key of city"):
        check(altered, world.consortium)


def test_an_approval_cannot_be_replayed_for_another_study(world: World, study: Study) -> None:
    approval = record(world, "approval", study=study.hash)
    other = parse_study(STUDY.replace("l2 = 1", "l2 = 2"))
    with pytest.raises(RecordError, match="approval of north: the signature does not fit"):
        check(replace(approval, study=other.hash), world.consortium)


def test_a_record_cannot_be_replayed_in_another_consortium(world: World) -> None:
    """Even if the same keys meet again in another one."""
    lung = join(world.cards.values(), "lung")
    one = record(world, "approval")
    with pytest.raises(RecordError, match="approval of north is for the consortium heart, here is lung"):
        check(one, lung)
    with pytest.raises(RecordError, match="the signature does not fit"):
        check(replace(one, consortium="lung"), lung)


def test_a_record_of_another_key_is_refused(world: World) -> None:
    forged = make(generate("north"), "heart", "north", "approval", "12" * 32, {}, NOW)
    with pytest.raises(RecordError, match=r"signed with the key .*, not with the key of north"):
        check(forged, world.consortium)
    claims = replace(forged, key_id=world.keys["north"].key_id)
    with pytest.raises(RecordError, match="the signature does not fit"):
        check(claims, world.consortium)
    in_anothers_name = make(world.keys["city"], "heart", "north", "approval", "12" * 32, {}, NOW)
    with pytest.raises(RecordError, match="not with the key of north"):
        check(in_anothers_name, world.consortium)


def test_a_stranger_and_a_revoked_member_are_refused(world: World) -> None:
    stranger = make(generate("west"), "heart", "west", "approval", "12" * 32, {}, NOW)
    with pytest.raises(RecordError, match="west is no member of the consortium heart"):
        check(stranger, world.consortium)
    one = record(world, "approval")
    left = world.consortium.revoke("north", "stolen")
    with pytest.raises(RecordError, match=f"the key {world.keys['north'].key_id[:12]} of north was revoked"):
        check(one, left)


def test_a_renewed_certificate_changes_nothing(world: World) -> None:
    key = world.keys["north"].renew()
    card = make_card(key, name="north", organisation="Hospital north", address="north.example:8443")
    renewed = world.consortium.renew(card).prune()
    check(record(world, "approval"), renewed)
    check(make(key, "heart", "north", "approval", "12" * 32, {}, NOW), world.consortium)


# ---- bodies ---------------------------------------------------------------------------------------


def signed_anyhow(key: NodeKey, kind: str, body: dict[str, Any], study: str = "12" * 32) -> Record:
    """What a member with its own software could sign: any body at all."""
    unsigned = Record("heart", "north", kind, study, body, "2030-06-01T12:00:00Z", key.key_id, "0" * 128)
    return replace(unsigned, signature=key.sign(records.DOMAIN, unsigned._signed()).hex())


BAD_BODIES: list[tuple[str, dict[str, Any], str]] = [
    ("approval", {"study": "x"}, "study: there is no such key"),
    ("rejection", {}, "reason: is missing"),
    ("rejection", {"reason": ""}, "reason: takes 1 to 500"),
    ("rejection", {"reason": "x" * 501}, "reason: takes 1 to 500"),
    ("rejection", {"reason": "\x1b[2J"}, r"reason: .*U\+001B"),
    ("rejection", {"reason": "a\nb"}, r"reason: .*U\+000A"),
    ("rejection", {"reason": 5}, "reason: "),
    ("run", {"attempt": 0, "dry": True}, "attempt: "),
    ("run", {"attempt": True, "dry": True}, "attempt: "),
    ("run", {"attempt": 1.0, "dry": True}, "attempt: "),
    ("run", {"attempt": 10**6, "dry": True}, "attempt: "),
    ("run", {"attempt": 1}, "dry: is missing"),
    ("run", {"attempt": 1, "dry": 1}, "dry: "),
    ("ready", {**BODIES["ready"], "certificate": "AAAA"}, "certificate: takes a worker's certificate"),
    ("ready", {**BODIES["ready"], "certificate": WORKER + "="}, "certificate: takes a worker's certificate"),
    ("ready", {**BODIES["ready"], "certificate": "!" + WORKER}, "certificate: takes a worker's certificate"),
    ("ready", {**BODIES["ready"], "certificate": "A" * 5000}, "certificate: "),
    ("ready", {**BODIES["ready"], "nonce": "CD" * 32}, "nonce: takes 64 hexadecimal"),
    ("ready", {**BODIES["ready"], "nonce": "cd" * 31}, "nonce: takes 64 hexadecimal"),
    ("ready", {**BODIES["ready"], "version": ""}, "version: takes 1 to 80"),
    ("ready", {**BODIES["ready"], "fingerprint": "\u202e"}, r"fingerprint: .*U\+202E"),
    ("outcome", {**GOOD, "error_type": "X"}, "went well has no error"),
    ("outcome", {**GOOD, "culprit": "city"}, "went well has no error"),
    ("outcome", {**GOOD, "retry": True}, "went well has no error"),
    ("outcome", {**GOOD, "ok": False}, "failed has an error and no result"),
    ("outcome", {**BODIES["outcome"], "result": "ef" * 32}, "failed has an error and no result"),
    ("outcome", {**BODIES["outcome"], "culprit": "../x"}, "culprit: a name is"),
    ("outcome", {**BODIES["outcome"], "text": "x" * 1001}, "text: takes 0 to 1000"),
    ("outcome", {**BODIES["outcome"], "text": "a\u0007"}, r"text: .*U\+0007"),
    ("outcome", {**GOOD, "audit": {"number": -1, "hash": "ab" * 32}}, "audit, number: "),
    ("outcome", {**GOOD, "audit": {"number": 1, "hash": "ab"}}, "audit, hash: takes 64"),
    ("outcome", {**GOOD, "result": "ef"}, "result: takes 64"),
    ("proposal", {"study": {}}, "study: format: is missing"),
    ("proposal", {"study": 5}, "study: "),
    ("proposal", {"study": {"format": float("1e308") * 1}}, "study: "),
]


@pytest.mark.parametrize(("kind", "body", "why"), BAD_BODIES)
def test_a_bad_body_is_refused_though_it_is_signed(world: World, kind: Any, body: dict[str, Any], why: str) -> None:
    one = parse(signed_anyhow(world.keys["north"], kind, body).encode())
    with pytest.raises(RecordError, match=f"^{kind}: .*{why}") as error:
        check(one, world.consortium)
    assert str(error.value).isprintable()
    with pytest.raises(RecordError, match=why):
        record(world, kind, body)


def test_a_study_that_was_altered_is_no_proposal_of_its_hash(world: World, study: Study) -> None:
    body = {"study": {**study.plain(), "attempts": 9}, "program": None}
    one = parse(signed_anyhow(world.keys["north"], "proposal", body, study.hash).encode())
    with pytest.raises(RecordError, match="does not have the hash that it names"):
        check(one, world.consortium)
    with pytest.raises(RecordError, match="does not have the hash that it names"):
        proposed(one)


def test_a_proposal_is_in_the_form_that_is_hashed(world: World, study: Study) -> None:
    plain = study.plain()
    del plain["attempts"]  # the default: the same study, in other bytes
    one = parse(signed_anyhow(world.keys["north"], "proposal", {"study": plain}, study.hash).encode())
    with pytest.raises(RecordError, match="not in the form that is hashed"):
        check(one, world.consortium)


def test_a_proposal_comes_with_the_program_that_it_pins(world: World, study: Study) -> None:
    own = parse_study(with_program())
    for program, why in ((PROGRAM + " ", "not the one that the study pins"), (None, "came without it")):
        body = {"study": own.plain(), "program": program}
        with pytest.raises(RecordError, match=why):
            check(parse(signed_anyhow(world.keys["north"], "proposal", body, own.hash).encode()), world.consortium)
    with pytest.raises(RecordError, match="has no program, but came with one"):
        proposal(world, study, "x")


def test_only_a_proposal_carries_a_study(world: World) -> None:
    with pytest.raises(RecordError, match="approval of north is no proposal"):
        proposed(record(world, "approval"))


# ---- envelopes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: {**r, "format": 2}, "format: "),
        (lambda r: {**r, "format": True}, "format: "),
        (lambda r: {**r, "kind": "order"}, "kind: "),
        (lambda r: {**r, "author": "../north"}, "author: a name is"),
        (lambda r: {**r, "author": "north\n"}, "author: a name is"),
        (lambda r: {**r, "study": "x"}, "study: takes 64"),
        (lambda r: {**r, "study": "../" + "0" * 61}, "study: takes 64"),
        (lambda r: {**r, "time": "now"}, "time: a time is written in UTC"),
        (lambda r: {**r, "time": 5}, "time: "),
        (lambda r: {**r, "key": "AB" * 32}, "key: takes 64"),
        (lambda r: {**r, "signature": r["signature"].upper()}, "signature: takes 128"),
        (lambda r: {**r, "signature": r["signature"] + "00"}, "signature: takes 128"),
        (lambda r: {**r, "body": []}, "body: "),
        (lambda r: {**r, "extra": 1}, "extra: there is no such key"),
        (lambda r: {key: r[key] for key in r if key != "time"}, "time: is missing"),
        (lambda r: {**r, "body": {"a": "x" * (512 * 1024)}}, "more than 524288 bytes"),
        (lambda r: {**r, "body": deep(40)}, "nested more than 32"),
        (lambda r: {**r, "body": {"a": float("nan")}}, "NaN"),
    ],
)
def test_a_bad_envelope_is_refused(world: World, change: Callable[[Any], Any], why: str) -> None:
    plain = change(record(world, "approval").plain())
    with pytest.raises(RecordError, match=f"^record: .*{why}") as error:
        parse(plain)
    assert str(error.value).isprintable()


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_bytes_are_bounded_before_they_are_read() -> None:
    with pytest.raises(RecordError, match="above the limit of 524288"):
        parse(b"[" * (512 * 1024 + 1))
    with pytest.raises(RecordError, match=r"not JSON|nested"):
        parse(b"[" * (512 * 1024))


def test_an_unknown_kind_is_not_made(world: World) -> None:
    with pytest.raises(RecordError, match="no kind of record 'order'"):
        make(world.keys["north"], "heart", "north", "order", "12" * 32, {}, NOW)  # type: ignore[arg-type]


def test_the_largest_study_fits_a_record(world: World) -> None:
    """Whatever read_study takes can be proposed."""
    categories = ", ".join(f'"{k} {"c" * 100}"' for k in range(255))
    program = "#" * (128 * 1024 - 1) + "\n"
    columns = "\n".join(f'[[columns]]\nname = "c{k}"\ntype = "category"\ncategories = [{categories}]' for k in range(7))
    text = with_program(program).replace("[program]", columns + "\n[program]")
    one = proposal(world, parse_study(text), program)
    assert len(one.encode()) > 300_000
    check(parse(one.encode()), world.consortium)


def test_times_are_those_of_the_author(world: World) -> None:
    east = datetime.timezone(datetime.timedelta(hours=5))
    one = make(world.keys["north"], "heart", "north", "approval", "12" * 32, {}, NOW.astimezone(east))
    assert one.time == "2030-06-01T12:00:00Z"
    with pytest.raises(ValueError, match="offset"):
        make(world.keys["north"], "heart", "north", "approval", "12" * 32, {}, NOW.replace(tzinfo=None))


def test_ids_differ_by_author_and_content(world: World) -> None:
    ids = {record(world, kind, author=author).id for kind in BODIES for author in ("north", "city")}
    assert len(ids) == 2 * len(BODIES)
