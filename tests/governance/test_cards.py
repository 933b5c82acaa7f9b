"""Party cards: signed by the key that they name, written as TOML that people read."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.canonical import canonical
from parties.governance.cards import PartyCard, make_card, read_card, write_card
from parties.governance.checks import from_plain
from parties.governance.errors import CardError
from parties.governance.keys import certificate_pem, generate
from parties.governance.toml import read_toml, write_toml
from tests.governance.world import World

KEY = generate("north")


def card(**changes: Any) -> PartyCard:
    return make_card(KEY, **{"name": "north", "organisation": "Klinikum Nord", **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for one in (
        card(),
        card(address="mpc.nord.example:8443", relay="https://relay.example:443", role="dealer"),
        card(address="[2001:db8::1]:1", organisation='M\u00fcnchen "Nord" \\ #1'),
        card(address="10.0.0.1:65535", relay="https://relay.example"),
    ):
        write_card(one, tmp_path / "card.toml")
        assert read_card(tmp_path / "card.toml") == one
        assert one.certificate_der == KEY.certificate
    assert (tmp_path / "card.toml").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "North"}, "name: a name is"),
        ({"name": ""}, "name: a name is"),
        ({"name": "n" * 33}, "name: a name is"),
        ({"name": "../north"}, "name: a name is"),
        ({"name": "north\n"}, "name: a name is"),
        ({"name": "n\u0456orth"}, "name: a name is"),
        ({"organisation": ""}, "organisation: takes 1 to 120"),
        ({"organisation": "x" * 121}, "organisation: takes 1 to 120"),
        ({"organisation": "a\x1b[2J"}, r"organisation: holds a character that does not show \(U\+001B\)"),
        ({"organisation": "a\u202eb"}, r"does not show \(U\+202E\)"),
        ({"organisation": "a\u200bb"}, r"does not show \(U\+200B\)"),
        ({"organisation": "a\u0308"}, "decomposed"),
        ({"organisation": " a"}, "space"),
        ({"address": "north"}, "address: an address is host:port"),
        ({"address": "north:0"}, "address: an address is host:port"),
        ({"address": "north:65536"}, "address: an address is host:port"),
        ({"address": "north:\u0661"}, "address: an address is host:port"),
        ({"address": "north:" + "9" * 5000}, "address: an address is host:port"),
        ({"address": "a b:1"}, "address: an address is host:port"),
        ({"address": ":1"}, "address: an address is host:port"),
        ({"address": "-a:1"}, "address: an address is host:port"),
        ({"address": "[nord]:1"}, "IPv6"),
        ({"address": "http://nord:1"}, "address: an address is host:port"),
        ({"address": "a" * 64 + ":1"}, "address: an address is host:port"),
        ({"relay": "http://relay.example"}, "relay: a relay is https://"),
        ({"relay": "https://relay.example/"}, "relay: a relay is https://"),
        ({"relay": "https://relay.example/path"}, "relay: a relay is https://"),
        ({"relay": "https://a:b@relay.example"}, "relay: a relay is https://"),
        ({"relay": "https://relay.example?x"}, "relay: a relay is https://"),
        ({"relay": "https://relay.example:99999"}, "relay: a relay is https://"),
        ({"relay": "https://"}, "relay: an address"),
        ({"role": "boss"}, "role: Input should be 'party' or 'dealer'"),
    ],
)
def test_what_a_card_may_say(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CardError, match=why) as error:
        card(**changes)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("field", ["name", "organisation", "role", "address", "relay", "certificate", "signature"])
def test_an_altered_card_is_refused(world: World, field: str) -> None:
    plain = world.cards["north"].model_dump()
    other = world.cards["helper"].model_dump()
    other["relay"] = "https://elsewhere.example"
    with pytest.raises(CardError, match="altered"):
        from_plain(PartyCard, {**plain, field: other[field]}, "card", CardError)


@given(st.data())
def test_a_card_with_any_character_changed_is_refused_or_the_same(data: st.DataObject) -> None:
    text = bytearray(_text())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    try:
        table = read_toml(bytes(text), limit=1 << 20, what="card", error=CardError)
        read = from_plain(PartyCard, table, "card", CardError)
    except CardError:
        return
    assert read == card()  # a comment, a space


def _text() -> bytes:
    return ("# A comment\n" + write_toml(card().model_dump())).encode()


def test_more_than_a_certificate_is_refused() -> None:
    plain = card().model_dump()
    with pytest.raises(CardError, match="altered"):
        from_plain(PartyCard, {**plain, "certificate": plain["certificate"] + "a note"}, "card", CardError)
    noted = "a note\n" + certificate_pem(KEY.certificate)
    signed = make_card_with(certificate=noted)
    with pytest.raises(CardError, match="more than a certificate"):
        from_plain(PartyCard, signed, "card", CardError)


def make_card_with(**changes: Any) -> dict[str, Any]:
    """Sign whatever it says, as somebody would who has the key."""
    plain = {**card().model_dump(exclude={"signature"}), **changes}
    return {**plain, "signature": KEY.sign("sottovoce card 1", canonical(plain)).hex()}


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"format": True}, {"format": 1.0}, {"extra": 1}, {"name": None}, {"address": 5}]
)
def test_a_signed_card_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CardError):
        from_plain(PartyCard, make_card_with(**changes), "card", CardError)


def test_the_file_is_toml_that_people_read(tmp_path: Path) -> None:
    write_card(card(address="a.example:1"), tmp_path / "card.toml")
    text = (tmp_path / "card.toml").read_text("utf-8")
    assert text.startswith("# Party card: public.")
    assert "\n-----BEGIN CERTIFICATE-----\n" in text
    assert "relay" not in text  # what is not there is not written
    assert tomllib.loads(text)["address"] == "a.example:1"


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    with pytest.raises(CardError, match=r"card.toml cannot be read"):
        read_card(path)
    path.write_text("format = 1\n")
    with pytest.raises(CardError, match=r"card.toml: name: is missing"):
        read_card(path)
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(CardError, match="larger than"):
        read_card(path)
