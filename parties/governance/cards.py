"""A party card: what one organisation tells the others, once, before they form a consortium.

The card is signed by the key that it names, which shows that its maker holds that key. Who the maker is,
no signature can show: for that, people compare the fingerprint of the joined consortium by telephone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from parties.governance.canonical import canonical
from parties.governance.checks import Address, FormatOne, Hex512, Name, Relay, ShortText, Strict, from_plain
from parties.governance.errors import CardError, KeyFileError
from parties.governance.files import read_bounded, replace, shown
from parties.governance.keys import NodeKey, certificate_der, certificate_pem, verify
from parties.governance.toml import read_toml, write_toml

Role = Literal["party", "dealer"]
_DOMAIN = "sottovoce card 1"
_LIMIT = 16 * 1024


class PartyCard(Strict):
    """What an organisation says of its node, signed by the node's key.

    Attributes
    ----------
    format : int
        1.
    name : str
        How the others call this member, such as ``north``.
    organisation : str
        Its full name, for people.
    role : {"party", "dealer"}
    certificate : str
        PEM.
    address : str or None
        ``host:port`` where the others reach the node; None if they cannot dial it.
    relay : str or None
        ``https://host[:port]`` of the relay where it can be met.
    signature : str
        Ed25519, hexadecimal.
    """

    format: FormatOne
    name: Name
    organisation: ShortText
    role: Role
    certificate: str
    address: Address | None = None
    relay: Relay | None = None
    signature: Hex512

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        try:
            certificate = certificate_der(self.certificate)
        except KeyFileError as error:
            raise ValueError(str(error)) from None
        if not verify(certificate, _DOMAIN, _signed_content(self.model_dump(mode="json")), self.signature_bytes):
            raise ValueError("the card was altered: its signature does not fit; ask its owner to send it again")
        if self.certificate != certificate_pem(certificate):
            raise ValueError("the certificate holds more than a certificate")
        return self

    @property
    def signature_bytes(self) -> bytes:
        """The signature."""
        return bytes.fromhex(self.signature)

    @property
    def certificate_der(self) -> bytes:
        """The certificate as DER."""
        return certificate_der(self.certificate)


def make_card(
    key: NodeKey,
    *,
    name: str,
    organisation: str,
    role: Role = "party",
    address: str | None = None,
    relay: str | None = None,
) -> PartyCard:
    """Make and sign the card of a node.

    Raises
    ------
    CardError
        If name, organisation or address are not what they may be.
    """
    content: dict[str, object] = {
        "format": 1,
        "name": name,
        "organisation": organisation,
        "role": role,
        "certificate": certificate_pem(key.certificate),
        "address": address,
        "relay": relay,
    }
    signature = key.sign(_DOMAIN, _signed_content(content)).hex()
    return from_plain(PartyCard, {**content, "signature": signature}, "party card", CardError)


def read_card(path: Path) -> PartyCard:
    """Read a card and check its signature.

    Raises
    ------
    CardError
    """
    what = f"party card {shown(path)}"
    data = read_bounded(path, limit=_LIMIT, what="party card", error=CardError)
    return from_plain(PartyCard, read_toml(data, limit=_LIMIT, what=what, error=CardError), what, CardError)


def write_card(card: PartyCard, path: Path) -> None:
    """Write a card as TOML; it is public."""
    text = "# Party card: public. Send it to the other members of the consortium.\n" + write_toml(card.model_dump())
    replace(path, text.encode("utf-8"), mode=0o644, what="party card", error=CardError)


def _signed_content(fields: dict[str, object]) -> bytes:
    return canonical({name: value for name, value in fields.items() if name != "signature"})
