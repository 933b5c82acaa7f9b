"""Attacks of a member with a good key and certificate: what it says is checked, and what it forges is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any

import pytest

from parties.governance import records
from parties.governance.canonical import canonical, digest
from parties.governance.studies import DOMAIN, Study, parse_study
from parties.identity import host_name
from parties.node.control import MESSAGE_BYTES, ChannelClosedError
from tests.consortium.conftest import VILLAIN, Attacked
from tests.consortium.nodes import Consortium, Node, eventually, knows
from tests.consortium.rogue import Member, answer_to, hear, knock, noted, parting_words, record_of, say
from tests.consortium.studies import MEAN, Draft
from tests.consortium.trials import explain


def test_member_cannot_call_itself_another(north: Node, villain: Member) -> None:
    async def attack() -> str:
        async with villain.dial(north, greet=False) as channel:
            await say(channel, villain.hello(name="city"))
            return await parting_words(channel)

    assert "its certificate is villain's" in asyncio.run(attack())
    noted(north, "peer refused", "calls itself")


def test_another_consortium_file_is_named_on_both_sides(north: Node, villain: Member) -> None:
    async def attack() -> str:
        async with villain.dial(north, greet=False) as channel:
            await say(channel, villain.hello(consortium="AAAA-AAAA-AAAA-AAAA-AAAA"))
            return await parting_words(channel)

    assert "its consortium file is another one" in asyncio.run(attack())
    noted(north, "peer refused", "consortium file is another one")


def test_clock_skew_is_named(north: Node, villain: Member) -> None:
    async def attack() -> str:
        async with villain.dial(north, greet=False) as channel:
            await say(channel, villain.hello(time="2001-01-01T00:00:00Z"))
            return await parting_words(channel)

    assert "behind ours" in asyncio.run(attack())


def test_member_cannot_enter_where_another_is_awaited(
    north: Node, villain: Member, consortium: Consortium, approved: Study
) -> None:
    """Its own good certificate, at the door of a worker that computes with the others' workers."""
    consortium.begin(approved, "south")
    ready = eventually(
        lambda: record_of(consortium["south"], approved.hash, "ready", "north"), "north's worker is ready"
    )
    certificate = base64.b64decode(ready["body"]["certificate"])
    assert knock(north, host_name(certificate), villain.key.identity, certificate) == b""
    view = consortium.settle(approved, "south")
    assert view["phase"] == "finished", explain(consortium, approved)
    assert view["attempts"]["used"] == 1


OVERSIZED = {
    "a message of 2 MiB": b'{"kind":"' + b"x" * (2 * MESSAGE_BYTES) + b'"}',
    "a bomb of brackets": b'{"kind":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "no JSON": b"\xff" * 1000,
    "no kind": b'{"a":1}',
    "an integer of a million digits": b'{"kind":"alive","n":' + b"9" * 1_000_000 + b"}",
    "an unknown kind": b'{"kind":"execute"}',
    "a path": b'{"kind":"result request","study":"../../../key.pem","offset":0}',
}


@pytest.mark.parametrize("data", OVERSIZED.values(), ids=OVERSIZED)
def test_message_beyond_the_rules_ends_the_link(data: bytes, north: Node, villain: Member) -> None:
    async def attack() -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        async with villain.dial(north) as channel:
            with contextlib.suppress(ChannelClosedError):  # it may close while we still write
                await channel.send(data)
            with contextlib.suppress(ChannelClosedError, TimeoutError):
                while True:
                    heard.append(await hear(channel, seconds=2))
        return heard

    for message in asyncio.run(attack()):
        assert message["kind"] in ("have", "want", "bye", "alive", "result")
        assert message.get("part", "") == ""  # nobody's result


# A member that forges.


def attack_with(record: dict[str, Any], node: Node, villain: Member) -> str:
    """Send a record as the villain; return why it is refused."""

    async def attack() -> str:
        async with villain.dial(node) as channel:
            return await answer_to(channel, record)

    return asyncio.run(attack())


def signed(node: Node, study: Study, kind: str, author: str) -> dict[str, Any]:
    """A signed record that the villain has come by."""
    found = record_of(node, study.hash, kind, author)
    assert found is not None
    return found


def test_study_altered_after_approval_is_refused(north: Node, villain: Member, approved: Study) -> None:
    proposal = signed(north, approved, "proposal", "north")
    study = {**proposal["body"]["study"], "minimum_parties": 3}
    why = attack_with({**proposal, "body": {**proposal["body"], "study": study}}, north, villain)
    assert "does not have the hash" in why or "signature does not fit" in why


def test_approval_for_another_study_is_refused(
    north: Node, consortium: Consortium, villain: Member, approved: Study
) -> None:
    """City's signature under one study, put under another one that city has not approved."""
    draft = Draft(consortium, "a study that city does not approve", [MEAN])
    other = parse_study(draft.text())
    north.ask("/studies", {"study": other.plain(), "program": None})
    approval = signed(north, approved, "approval", "city")
    why = attack_with({**approval, "study": other.hash}, north, villain)
    assert "signature does not fit" in why
    eventually(lambda: knows(consortium["city"], other.hash), "city has heard of it")
    assert "city" not in north.study(other.hash)["approvals"]
    assert north.study(other.hash)["phase"] == "proposed"


@pytest.mark.parametrize("change", ["author", "consortium", "kind", "time", "key"])
def test_record_with_one_thing_changed_is_refused(change: str, north: Node, villain: Member, approved: Study) -> None:
    approval = signed(north, approved, "approval", "city")
    other = {
        "author": "south",
        "consortium": "another",
        "kind": "cancellation",
        "time": "2026-01-01T00:00:00Z",
        "key": villain.key.key_id,
    }
    altered = {**approval, change: other[change]}
    if change == "kind":
        altered["body"] = {"reason": "because"}
    assert attack_with(altered, north, villain)
    assert north.study(approved.hash)["phase"] in ("approved", "finished")


def test_attacks_are_noted_and_a_flood_of_them_does_not_fill_the_log(
    north: Node, villain: Member, approved: Study
) -> None:
    """A few notes a minute are written about one member."""
    approval = signed(north, approved, "approval", "city")
    before = len(north.audit())

    async def flood() -> None:
        async with villain.dial(north) as channel:
            with contextlib.suppress(ChannelClosedError, TimeoutError):
                for number in range(300):
                    await say(channel, {"kind": "record", "record": {**approval, "study": f"{number:064x}"}})
                while True:
                    await hear(channel, seconds=1)

    asyncio.run(flood())
    assert len(north.audit()) - before < 60
    # What is left out is counted, and told with the next note: tests/node/test_service_moderation.py.
    assert attack_with({**approval, "study": "f" * 64}, north, villain)  # and it goes on serving


def test_member_cannot_speak_for_another(north: Node, villain: Member, approved: Study) -> None:
    forged = villain.record("cancellation", approved.hash, {"reason": "none"}, author="city")
    assert "not with the key of city" in attack_with(forged.plain(), north, villain)
    own = villain.record("cancellation", approved.hash, {"reason": "none"})
    assert "takes no part" in attack_with(own.plain(), north, villain)


def study_by(villain: Member, consortium: Consortium, **changed: Any) -> dict[str, Any]:
    """The plain form of a study of the villain and two others, with something changed."""
    names = ["north", "city", VILLAIN]
    plain = parse_study(Draft(consortium, "of the villain", [MEAN]).text()).plain()
    return {**plain, "contributors": names, "recipients": names, **changed}


FORBIDDEN: dict[str, dict[str, Any]] = {
    "a protocol that does not exist": {"analyses": [{"name": "x", "protocol": "exec", "columns": ["age"]}]},
    "a module as protocol": {"analyses": [{"name": "x", "protocol": "os.system", "columns": ["age"]}]},
    "a parameter of one's own": {"analyses": [{**MEAN, "count": "total", "code": "import os"}]},
    "a name with a path": {"analyses": [{**MEAN, "name": "../../x", "count": "total"}]},
    "a title that steers the terminal": {"title": "\x1b[2J"},
    "a program elsewhere": {"analyses": [], "program": {"file": "../study.py", "sha256": "0" * 64}},
    "malicious security": {"security": "malicious"},
}


@pytest.mark.parametrize("changed", FORBIDDEN.values(), ids=FORBIDDEN)
def test_proposal_that_is_not_allowed_is_refused(
    changed: dict[str, Any], north: Node, villain: Member, consortium: Consortium
) -> None:
    """Hashed and signed by the villain as if its own software allowed it."""
    study = study_by(villain, consortium, **changed)
    study_hash = digest(DOMAIN, canonical(study))
    honest = villain.record("approval", study_hash, {})
    content = {**honest.plain(), "kind": "proposal", "body": {"study": study, "program": None}}
    del content["signature"]
    signature = villain.key.sign(records.DOMAIN, canonical(content)).hex()
    why = attack_with({**content, "signature": signature}, north, villain)
    assert why
    assert not knows(north, study_hash)


def test_protocol_that_the_owner_does_not_allow_is_not_approved(north: Node, consortium: Consortium) -> None:
    """It is in the catalogue, and not in this node's policy."""
    variance = {"name": "spread", "protocol": "variance", "columns": ["age"]}
    file = Draft(consortium, "too much", [variance]).write(north.directory / "model.toml")
    north("propose", file)
    done = north.attempt("approve", "too much")
    assert done.returncode == 1
    assert "'variance' is not allowed here" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert north.study("too much")["approvals"] == []


def test_study_altered_on_disk_is_noticed(attacked: Attacked, approved: Study) -> None:
    """Of somebody who can write into a node's directory, and wants another study under the old approvals."""
    south = attacked.consortium["south"]
    south.stop()
    file = south.state / "studies" / approved.hash / "study.json"
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b'"minimum_parties":2', b'"minimum_parties":3'))
    south.start()
    eventually(lambda: attacked.others_there(south), "south is up")
    assert any(approved.hash[:12] in damage for damage in south.ask("/status")["damaged"])
    noted(south, "damaged", approved.hash[:12])
    south.stop()
    file.write_bytes(kept)
    south.start()
    attacked.wait()
    assert south.study(approved.hash)["approvals"] == ["north", "city", "south"]
