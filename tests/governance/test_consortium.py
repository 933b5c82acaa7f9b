"""The consortium file: one content, one fingerprint; every difference between two copies is named."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.governance.cards import PartyCard, make_card
from parties.governance.consortium import Consortium, Member, Revocation, differences, from_tables, join
from parties.governance.errors import ConsortiumError
from parties.governance.keys import generate
from parties.governance.toml import read_toml, write_toml
from parties.identity import client_context, host_name, presented_certificate, server_context
from tests.governance.world import World
from tests.parties.test_identity import shake_hands


def card_of(world: World, name: str, /, **changes: Any) -> PartyCard:
    old = world.cards[name]
    return make_card(
        changes.pop("key", world.keys[name]),
        **{**old.model_dump(include={"name", "organisation", "role", "address", "relay"}), **changes},
    )


def test_a_file_gives_back_what_was_saved(world: World, tmp_path: Path) -> None:
    whole = replace(world.consortium, revoked=(Revocation("west", "ab" * 32, "left the consortium"),))
    for one in (world.consortium, whole):
        one.save(tmp_path / "c.toml")
        read = Consortium.load(tmp_path / "c.toml")
        assert read == one
        assert (read.fingerprint, read.hash) == (one.fingerprint, one.hash)


def test_members_are_found_by_name_key_and_certificate(world: World) -> None:
    c = world.consortium
    assert c.names == ("city", "helper", "north", "south")
    for name, key in world.keys.items():
        member = c.member(name)
        assert member.organisation == f"Hospital {name}"
        assert c.by_key(key.key_id) == c.by_certificate(key.certificate) == member
        assert member.key_id == key.key_id
    assert c.by_key("0" * 64) is None
    assert c.by_certificate(generate("north").certificate) is None
    with pytest.raises(ConsortiumError, match="no member 'west': its members are city, helper, north, south"):
        c.member("west")
    with pytest.raises(ConsortiumError, match=r"no member '\\x1b'"):
        c.member("\x1b")


def test_a_fingerprint_is_of_the_content_alone(world: World, tmp_path: Path) -> None:
    c = world.consortium
    assert len(c.fingerprint) == 24
    assert [len(part) for part in c.fingerprint.split("-")] == [4] * 5
    base64.b32decode(c.fingerprint.replace("-", "") + "====")
    assert join(reversed(list(world.cards.values())), "heart").fingerprint == c.fingerprint
    tables = c._plain()
    tables["members"] = list(reversed(tables["members"]))  # type: ignore[call-overload]
    lines = write_toml({"name": "heart", "format": 1}, {"members": tables["members"]}).split("\n")  # type: ignore[dict-item]
    text = "# another comment\r\n" + "\n\n".join(lines[:3]) + "\n" + "\n".join(lines[3:])
    (tmp_path / "c.toml").write_text(text, "utf-8")
    assert Consortium.load(tmp_path / "c.toml").fingerprint == c.fingerprint


def test_a_frozen_fingerprint() -> None:
    """People compare it over years: it never changes with the software."""
    pem = (Path(__file__).parent / "frozen_certificate.txt").read_text("ascii")
    tables = {
        "format": 1,
        "name": "heart",
        "members": [{"name": "north", "organisation": "Nord", "role": "party", "certificates": [pem]}],
    }
    c = from_tables(tables, "frozen")
    assert c.fingerprint == "YKH2-RZ2M-ASYQ-JRXQ-NLRQ"
    assert c.hash == "036af19739afc3468de4c35357df1e01b0f383e5e72c903aec9e406f34cf7d8c"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda w: join([w.cards[n] for n in ("north", "city", "south")], "heart"),
            "helper is a member in the first only",
        ),
        (lambda w: replace(w.consortium, name="lung"), "the first is named heart, the second lung"),
        (
            lambda w: changed(w, "city", address="city.example:8444"),
            "city: address is 'city.example:8443' in the first, 'city.example:8444' in the second",
        ),
        (
            lambda w: changed(w, "city", address=None),
            "city: address is 'city.example:8443' in the first, None in the second",
        ),
        (lambda w: changed(w, "city", relay="https://r.example"), "city: relay is None in the first, 'https://r.ex"),
        (lambda w: changed(w, "city", organisation="Hospital City"), "city: organisation is 'Hospital city' in the"),
        (lambda w: changed(w, "city", role="dealer"), "city: role is 'party' in the first, 'dealer' in the second"),
        (lambda w: changed(w, "city", key=generate("city")), "city: the key is "),
        (lambda w: w.consortium.renew(card_of(w, "city", key=w.keys["city"].renew())), "city: the certificates are "),
        (
            lambda w: replace(w.consortium, revoked=(Revocation("west", "ab" * 32, "x"),)),
            "key abababababab... of west is revoked in the second only",
        ),
    ],
)
def test_every_difference_is_named_and_shows_in_the_fingerprint(world: World, change: Any, sentence: str) -> None:
    other = change(world)
    found = differences(world.consortium, other)
    assert len(found) == 1
    assert found[0].startswith(sentence)
    assert other.fingerprint != world.consortium.fingerprint
    assert other.hash != world.consortium.hash
    assert len(differences(other, world.consortium)) == 1
    assert differences(other, other) == []


def changed(world: World, name: str, **changes: Any) -> Consortium:
    cards = {**world.cards, name: card_of(world, name, **changes)}
    return join(cards.values(), "heart")


def test_reasons_of_revocations_are_compared(world: World) -> None:
    one = replace(world.consortium, revoked=(Revocation("west", "ab" * 32, "x"),))
    other = replace(world.consortium, revoked=(Revocation("west", "ab" * 32, "y"),))
    assert differences(one, other) == ["key abababababab... of west is revoked with different names or reasons"]


@settings(max_examples=30)
@given(st.data())
def test_any_change_of_the_text_is_a_difference_or_none(data: st.DataObject) -> None:
    """Two files with one fingerprint have no differences, and the other way round."""
    text = bytearray(TEXT)
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 127))
    try:
        other = _parse(bytes(text))
    except ConsortiumError:
        return
    assert (other.hash == ORIGINAL.hash) == (differences(ORIGINAL, other) == [])


def _parse(data: bytes) -> Consortium:
    return from_tables(read_toml(data, limit=1 << 20, what="c", error=ConsortiumError), "c")


ORIGINAL = join(
    [make_card(generate(n), name=n, organisation=n.upper(), address=f"{n}.example:1") for n in ("a", "b")], "c"
)
TEXT = write_toml({"format": 1, "name": "c"}, {"members": ORIGINAL._plain()["members"]}).encode()  # type: ignore[dict-item]


# ---- joining --------------------------------------------------------------------------------------


def test_cards_must_be_of_different_names_and_keys(world: World) -> None:
    cards = list(world.cards.values())
    with pytest.raises(ConsortiumError, match="two members are named north"):
        join([*cards, card_of(world, "north", key=generate("x"))], "heart")
    with pytest.raises(ConsortiumError, match="north and west have the same key"):
        join([*cards, card_of(world, "north", name="west")], "heart")
    with pytest.raises(ConsortiumError, match="at least two members"):
        join(cards[:1], "heart")
    for name in ("Heart", "a b", "../x", "", "x" * 33, "heart\n"):
        with pytest.raises(ConsortiumError, match="consortium's name"):
            join(cards, name)


def test_there_is_a_most_of_members(world: World) -> None:
    members = [
        replace(world.consortium.member("north"), name=f"n{k}", certificates=(generate("n").certificate,))
        for k in range(65)
    ]
    Consortium("heart", tuple(members[:64]))
    with pytest.raises(ConsortiumError, match="more than 64 members"):
        Consortium("heart", tuple(members))


def test_a_member_can_be_added(world: World) -> None:
    west = make_card(generate("west"), name="west", organisation="W")
    grown = world.consortium.add(west)
    assert differences(world.consortium, grown) == ["west is a member in the second only"]
    with pytest.raises(ConsortiumError, match="two members are named west"):
        grown.add(make_card(generate("west"), name="west", organisation="W"))


# ---- renewing and revoking ------------------------------------------------------------------------


def test_renewal_adds_the_new_certificate_and_pruning_drops_the_old(world: World) -> None:
    key = world.keys["north"].renew()
    renewed = world.consortium.renew(card_of(world, "north", key=key, address="new.example:1"))
    member = renewed.member("north")
    assert member.certificates == (key.certificate, world.keys["north"].certificate)
    assert member.certificate == key.certificate
    assert member.address == "new.example:1"
    assert renewed.by_certificate(world.keys["north"].certificate) == member  # still accepted
    assert renewed.renew(card_of(world, "north", key=key, address="new.example:1")) == renewed  # again: nothing
    pruned = renewed.prune()
    assert pruned.member("north").certificates == (key.certificate,)
    assert pruned.by_certificate(world.keys["north"].certificate) is None
    assert pruned.member("city") == world.consortium.member("city")


def test_both_certificates_serve_until_pruned(world: World) -> None:
    """Old and new are pinned side by side, in either order: TLS takes both."""
    old, new, city = world.keys["north"].renew(), world.keys["north"].renew(), world.keys["city"]
    first = world.consortium.renew(card_of(world, "north", key=old))
    member = first.renew(card_of(world, "north", key=new)).member("north")
    assert len(member.certificates) == 3
    for pins in (member.certificates, tuple(reversed(member.certificates))):
        for key in (world.keys["north"], old, new):
            server, _ = shake_hands(
                server_context(city.identity, pins),
                client_context(key.identity, [city.certificate]),
                host_name(city.certificate),
            )
            assert presented_certificate(server) == key.certificate


def test_only_so_many_certificates_are_kept(world: World) -> None:
    c = world.consortium
    for _ in range(8):
        c = c.renew(card_of(world, "north", key=world.keys["north"].renew()))
    assert len(c.member("north").certificates) == 4
    assert from_tables(c._plain(), "c") == c


def test_a_renewal_is_of_the_same_key_and_role(world: World) -> None:
    with pytest.raises(ConsortiumError, match="another key: that is no renewal"):
        world.consortium.renew(card_of(world, "north", key=generate("north")))
    with pytest.raises(ConsortiumError, match="says that north is a dealer"):
        world.consortium.renew(card_of(world, "north", role="dealer"))
    with pytest.raises(ConsortiumError, match="no member 'west'"):
        world.consortium.renew(make_card(world.keys["north"], name="west", organisation="W"))


@pytest.mark.parametrize("by", ["name", "key"])
def test_a_revoked_key_belongs_to_nobody(world: World, tmp_path: Path, by: str) -> None:
    key = world.keys["north"]
    left = world.consortium.revoke("north" if by == "name" else key.key_id, "stolen laptop")
    assert "north" not in left.names
    assert left.by_key(key.key_id) is None
    assert left.by_certificate(key.certificate) is None
    with pytest.raises(ConsortiumError, match="no member 'north'"):
        left.member("north")
    revocation = left.revocation(key.key_id)
    assert revocation is not None
    assert (revocation.name, revocation.reason) == ("north", "stolen laptop")
    left.save(tmp_path / "c.toml")
    assert Consortium.load(tmp_path / "c.toml") == left
    with pytest.raises(ConsortiumError, match="was revoked: it needs a new key"):
        left.add(card_of(world, "north"))
    back = left.add(card_of(world, "north", key=generate("north")))  # under the old name, with a new key
    assert back.member("north").key_id != key.key_id


def test_a_revoked_key_that_still_stands_in_the_file_is_no_member(world: World) -> None:
    """Somebody wrote the revocation by hand and left the member where it was."""
    tables = world.consortium._plain()
    tables["revoked"] = [{"name": "north", "key": world.keys["north"].key_id, "reason": "by hand"}]
    read = from_tables(tables, "c")
    assert "north" not in read.names
    assert read.hash == world.consortium.revoke("north", "by hand").hash


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\nb", "a\x1b[0m"])
def test_a_reason_is_one_printable_line(world: World, reason: str) -> None:
    with pytest.raises(ConsortiumError, match="reason: "):
        world.consortium.revoke("north", reason)


# ---- files that are not good ----------------------------------------------------------------------


def table(world: World, **changes: Any) -> dict[str, Any]:
    return {**world.consortium._plain(), **changes}


def member(world: World, **changes: Any) -> dict[str, Any]:
    tables: Any = world.consortium._plain()["members"]
    return {**tables[0], **changes}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda w: table(w, format=2), "format: "),
        (lambda w: table(w, format=True), "format: "),
        (lambda w: table(w, extra=1), "extra: there is no such key"),
        (lambda w: table(w, members={}), "members: "),
        (lambda w: table(w, members=[member(w, name="../x")]), "members, entry 1, name: a name is"),
        (lambda w: table(w, members=[member(w, certificates=[])]), "certificates: "),
        (lambda w: table(w, members=[member(w, certificates=["x"])]), "city: this is not a certificate"),
        (lambda w: table(w, members=[member(w, certificates=[1])]), "certificates, entry 1: "),
        (lambda w: table(w, members=[member(w, certificates=member(w)["certificates"] * 2)]), "stands there twice"),
        (lambda w: table(w, members=[member(w, certificates=mixed(w))]), "of different keys"),
        (lambda w: table(w, members=[member(w, role="king")]), "role: "),
        (lambda w: table(w, members=[member(w)] * 65), "members: "),
        (lambda w: table(w, members=[member(w)] * 2), "two members are named city"),
        (
            lambda w: table(w, revoked=[{"name": "x", "key": "0" * 63, "reason": "r"}]),
            "revoked, entry 1, key: takes 64",
        ),
        (
            lambda w: table(w, revoked=[{"name": "x", "key": "A" * 64, "reason": "r"}]),
            "revoked, entry 1, key: takes 64",
        ),
        (lambda w: table(w, revoked=[{"name": "x", "key": "0" * 64, "reason": "r"}] * 2), "revoked twice"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(world: World, change: Any, why: str) -> None:
    with pytest.raises(ConsortiumError, match=f"(?s)consortium x.*{why}") as error:
        from_tables(change(world), "consortium x")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def mixed(world: World) -> list[str]:
    plain: Any = world.consortium._plain()["members"]
    return [plain[0]["certificates"][0], plain[1]["certificates"][0]]


def test_a_file_that_everybody_can_write_is_not_trusted(world: World, tmp_path: Path) -> None:
    world.consortium.save(tmp_path / "c.toml")
    (tmp_path / "c.toml").chmod(0o666)
    with pytest.raises(ConsortiumError, match="can be written by everybody: chmod o-w "):
        Consortium.load(tmp_path / "c.toml")


def test_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConsortiumError, match="larger than 1048576 bytes"):
        Consortium.load(path)


def test_a_member_is_a_value(world: World) -> None:
    one = world.consortium.member("north")
    assert one == Member(one.name, one.organisation, one.role, one.certificates, one.address, one.relay)
