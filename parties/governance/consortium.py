"""The consortium: the members that know each other's certificates, in one file that all copies must equal."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from parties.governance import files
from parties.governance.canonical import canonical, digest, separated
from parties.governance.cards import PartyCard, Role
from parties.governance.checks import (
    Address,
    FormatOne,
    Hex256,
    Name,
    Reason,
    Relay,
    ShortText,
    Strict,
    from_plain,
    is_name,
    short,
)
from parties.governance.errors import ConsortiumError, KeyFileError
from parties.governance.keys import certificate_der, certificate_pem, key_id_of
from parties.governance.toml import read_toml, write_toml
from parties.identity import fingerprint as certificate_fingerprint

MOST_MEMBERS = 64
_LIMIT = 1 << 20
_CERTIFICATES = 4
_REVOKED = 256
_DOMAIN = "sottovoce consortium 1"
# A fingerprint is 100 bits, so that people will compare it. Whoever composes the file could look for two
# files with one fingerprint (2^50 tries); each try is made to cost 2^18 hashes.
_STRETCH = 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a consortium.

    Attributes
    ----------
    name, organisation : str
    role : {"party", "dealer"}
    certificates : tuple of bytes
        DER, all of one key; the first is the current one, the others are still accepted.
    address : str or None
        ``host:port``; None if it cannot be dialled.
    relay : str or None
    key_id : str
        Of the certificates' key; it stays when they are renewed.
    """

    name: str
    organisation: str
    role: Role
    certificates: tuple[bytes, ...]
    address: str | None = None
    relay: str | None = None
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Name the key."""
        object.__setattr__(self, "key_id", key_id_of(self.certificates[0]))

    @property
    def certificate(self) -> bytes:
        """The current certificate."""
        return self.certificates[0]


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that is no longer trusted."""

    name: str
    key_id: str
    reason: str


class _MemberTable(Strict):
    name: Name
    organisation: ShortText
    role: Role
    address: Address | None = None
    relay: Relay | None = None
    certificates: Annotated[tuple[str, ...], Field(min_length=1, max_length=_CERTIFICATES)]


class _RevokedTable(Strict):
    name: Name
    key: Hex256
    reason: Reason


class _File(Strict):
    format: FormatOne
    name: Name
    members: Annotated[tuple[_MemberTable, ...], Field(max_length=MOST_MEMBERS)] = ()
    revoked: Annotated[tuple[_RevokedTable, ...], Field(max_length=_REVOKED)] = ()


@dataclass(frozen=True)
class Consortium:
    """Who may take part, by name and key; a revoked key belongs to nobody.

    Attributes
    ----------
    name : str
    members : tuple of Member
        By name.
    revoked : tuple of Revocation
        By key id.
    """

    name: str
    members: tuple[Member, ...]
    revoked: tuple[Revocation, ...] = ()

    def __post_init__(self) -> None:
        """Bring members into order and check them."""
        if not is_name(self.name):
            raise ConsortiumError(
                "a consortium's name is a lower-case letter, then at most 31 letters, digits or hyphens"
            )
        gone = {one.key_id for one in self.revoked}
        if len(gone) != len(self.revoked):
            raise ConsortiumError(f"consortium {self.name}: a key is revoked twice")
        kept = sorted((one for one in self.members if one.key_id not in gone), key=lambda one: one.name)
        object.__setattr__(self, "members", tuple(kept))
        object.__setattr__(self, "revoked", tuple(sorted(self.revoked, key=lambda one: one.key_id)))
        if len(kept) > MOST_MEMBERS:
            raise ConsortiumError(f"consortium {self.name}: more than {MOST_MEMBERS} members")
        _check_members(self.name, kept)

    # ---- who is who ---------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(one.name for one in self.members)

    def member(self, name: str) -> Member:
        """Return a member.

        Raises
        ------
        ConsortiumError
            If there is none of that name.
        """
        for one in self.members:
            if one.name == name:
                return one
        raise ConsortiumError(
            f"consortium {self.name} has no member {short(name)}: its members are {', '.join(self.names) or 'none'}"
        )

    def by_key(self, key_id: str) -> Member | None:
        """Return the member with this key id; None if the key is unknown or revoked."""
        return next((one for one in self.members if one.key_id == key_id), None)

    def by_certificate(self, certificate: bytes) -> Member | None:
        """Return the member to which exactly this certificate (DER) belongs; None if unknown or revoked."""
        return next((one for one in self.members if certificate in one.certificates), None)

    def revocation(self, key_id: str) -> Revocation | None:
        """Return why a key is not trusted; None if it was not revoked."""
        return next((one for one in self.revoked if one.key_id == key_id), None)

    # ---- one content, one fingerprint ---------------------------------------------------------------

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the content in hexadecimal, for machines to compare."""
        return digest(_DOMAIN, self._canonical())

    @cached_property
    def fingerprint(self) -> str:
        """Twenty characters for people to compare by telephone: ``7KQF-2M3X-...``.

        The same for the same content, whatever the order, spaces and comments of the file. 100 bits of
        PBKDF2-HMAC-SHA-256 with 2^18 rounds over the content's hash; it takes a tenth of a second.
        """
        stretched = hashlib.pbkdf2_hmac("sha256", separated(_DOMAIN, self._canonical()), b"fingerprint", _STRETCH)
        letters = base64.b32encode(stretched).decode("ascii")[:20]
        return "-".join(letters[k : k + 4] for k in range(0, 20, 4))

    def _canonical(self) -> bytes:
        return canonical(self._plain())

    def _plain(self) -> dict[str, object]:
        return {
            "format": 1,
            "name": self.name,
            "members": [_member_plain(one) for one in self.members],
            "revoked": [{"name": one.name, "key": one.key_id, "reason": one.reason} for one in self.revoked],
        }

    # ---- changes ------------------------------------------------------------------------------------

    def add(self, card: PartyCard) -> Consortium:
        """Return the consortium with one more member."""
        if self.revocation(key_id_of(card.certificate_der)) is not None:
            raise ConsortiumError(f"the key of {card.name} was revoked: it needs a new key (sottovoce keygen)")
        return replace(self, members=(*self.members, _member_of(card)))

    def renew(self, card: PartyCard) -> Consortium:
        """Return the consortium with a member's new certificate, address and relay.

        The certificate that was current stays accepted until it is pruned, so that members may take over
        the new file one after the other.

        Raises
        ------
        ConsortiumError
            If the card is of another key or role: that is no renewal.
        """
        old, new = self.member(card.name), _member_of(card)
        if new.key_id != old.key_id:
            raise ConsortiumError(
                f"the card of {card.name} is of another key: that is no renewal; revoke the old key, then add the card"
            )
        if new.role != old.role:
            raise ConsortiumError(f"the card says that {card.name} is a {new.role}, it is a {old.role} here")
        kept = (one for one in old.certificates if one != new.certificate)
        renewed = replace(new, certificates=(new.certificate, *kept)[:_CERTIFICATES])
        return replace(self, members=tuple(renewed if one.name == old.name else one for one in self.members))

    def prune(self) -> Consortium:
        """Return the consortium with each member's current certificate only."""
        return replace(self, members=tuple(replace(one, certificates=one.certificates[:1]) for one in self.members))

    def revoke(self, who: str, reason: str) -> Consortium:
        """Return the consortium without a member, named by name or key id; its key is never trusted again.

        Raises
        ------
        ConsortiumError
        """
        found = self.by_key(who) or self.member(who)
        return self._checked((*self.revoked, Revocation(found.name, found.key_id, reason)))

    def _checked(self, revoked: tuple[Revocation, ...]) -> Consortium:
        changed = replace(self, revoked=revoked)
        return from_tables(changed._plain(), f"consortium {self.name}")  # a reason is text that people type

    # ---- files --------------------------------------------------------------------------------------

    @staticmethod
    def load(path: Path) -> Consortium:
        """Read a consortium file.

        Raises
        ------
        ConsortiumError
        """
        what = f"consortium file {files.shown(path)}"
        data = files.read_bounded(path, limit=_LIMIT, what="consortium file", error=ConsortiumError, trusted=True)
        return from_tables(read_toml(data, limit=_LIMIT, what=what, error=ConsortiumError), what)

    def save(self, path: Path) -> None:
        """Write the file, in place of the one that may be there; it is public."""
        text = (
            f"# Consortium {self.name}. Every member holds a copy; compare the fingerprint by telephone:\n"
            f"# {self.fingerprint}\n"
        ) + write_toml(
            {"format": 1, "name": self.name},
            {
                "members": [_member_plain(one) for one in self.members],
                "revoked": [{"name": one.name, "key": one.key_id, "reason": one.reason} for one in self.revoked],
            },
        )
        files.replace(path, text.encode("utf-8"), mode=0o644, what="consortium file", error=ConsortiumError)


def join(cards: Iterable[PartyCard], name: str) -> Consortium:
    """Make a consortium of the cards of its members.

    Raises
    ------
    ConsortiumError
        Two cards of one name or one key, or fewer than two cards.
    """
    members = tuple(_member_of(card) for card in cards)
    if len(members) < 2:
        raise ConsortiumError("a consortium has at least two members: give the cards of all of them")
    return Consortium(name, members)


def from_tables(value: object, what: str) -> Consortium:
    """Make a consortium of the tables of its file.

    Raises
    ------
    ConsortiumError
    """
    file = from_plain(_File, value, what, ConsortiumError)
    members = []
    for one in file.members:
        try:
            certificates = tuple(certificate_der(each) for each in one.certificates)
        except KeyFileError as error:
            raise ConsortiumError(f"{what}: {one.name}: {error}") from None
        members.append(Member(one.name, one.organisation, one.role, certificates, one.address, one.relay))
    revoked = tuple(Revocation(one.name, one.key, one.reason) for one in file.revoked)
    try:
        return Consortium(file.name, tuple(members), revoked)
    except ConsortiumError as error:
        raise ConsortiumError(f"{what}: {error}") from None


def differences(a: Consortium, b: Consortium) -> list[str]:
    """Say what differs between two copies, a sentence for each difference; empty if they are alike."""
    found = []
    if a.name != b.name:
        found.append(f"the first is named {a.name}, the second {b.name}")
    ours, theirs = {one.name: one for one in a.members}, {one.name: one for one in b.members}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            found.append(f"{name} is a member in the first only")
        elif name not in ours:
            found.append(f"{name} is a member in the second only")
        else:
            found += _member_differences(ours[name], theirs[name])
    first = {one.key_id: one for one in a.revoked}
    second = {one.key_id: one for one in b.revoked}
    for key in sorted(first.keys() | second.keys()):
        if key not in second or key not in first:
            one, where = (first[key], "first") if key in first else (second[key], "second")
            found.append(f"key {key[:12]}... of {one.name} is revoked in the {where} only")
        elif first[key] != second[key]:
            found.append(f"key {key[:12]}... of {first[key].name} is revoked with different names or reasons")
    return found


def _member_differences(a: Member, b: Member) -> list[str]:
    found = [
        f"{a.name}: {field} is {short(one)} in the first, {short(other)} in the second"
        for field in ("organisation", "role", "address", "relay")
        if (one := getattr(a, field)) != (other := getattr(b, field))
    ]
    if a.key_id != b.key_id:
        found.append(f"{a.name}: the key is {a.key_id[:12]}... in the first, {b.key_id[:12]}... in the second")
    elif a.certificates != b.certificates:
        one, other = _certificates_shown(a), _certificates_shown(b)
        found.append(f"{a.name}: the certificates are {one} in the first, {other} in the second")
    return found


def _certificates_shown(member: Member) -> str:
    return ", ".join(f"{certificate_fingerprint(one)[:12]}..." for one in member.certificates)


def _member_plain(one: Member) -> dict[str, object]:
    return {
        "name": one.name,
        "organisation": one.organisation,
        "role": one.role,
        "address": one.address,
        "relay": one.relay,
        "certificates": [certificate_pem(each) for each in one.certificates],
    }


def _member_of(card: PartyCard) -> Member:
    return Member(card.name, card.organisation, card.role, (card.certificate_der,), card.address, card.relay)


def _check_members(consortium: str, members: Sequence[Member]) -> None:
    names: set[str] = set()
    keys: dict[str, str] = {}
    for one in members:
        if one.name in names:
            raise ConsortiumError(f"consortium {consortium}: two members are named {one.name}; each needs its own name")
        names.add(one.name)
        if one.key_id in keys:
            raise ConsortiumError(f"consortium {consortium}: {keys[one.key_id]} and {one.name} have the same key")
        keys[one.key_id] = one.name
        if len({key_id_of(each) for each in one.certificates}) > 1:
            raise ConsortiumError(f"consortium {consortium}: the certificates of {one.name} are of different keys")
        if len(set(one.certificates)) != len(one.certificates):
            raise ConsortiumError(f"consortium {consortium}: a certificate of {one.name} stands there twice")
