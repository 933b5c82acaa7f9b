"""``sottovoce keygen`` and ``sottovoce consortium``: who we are, and with whom we compute."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parties.governance.consortium import Consortium
    from parties.governance.keys import NodeKey

CARD_FILE = "card.toml"
PREVIOUS_FILE = "certificate.previous.pem"


class RoleName(StrEnum):
    """What a node does in the consortium."""

    party = "party"
    dealer = "dealer"


File = Annotated[Path, typer.Argument(metavar="FILE", help="The consortium file.")]
CardArgument = Annotated[Path, typer.Argument(metavar="CARD", help="A party card (card.toml).")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(keygen)
    group = typer.Typer(no_args_is_help=True, help="Join the members' cards to one file, and keep its copies alike.")
    for command in (join, show, compare, add, renew, revoke):
        group.command()(command)
    app.add_typer(group, name="consortium")


def keygen(
    directory: Annotated[Path, typer.Option(help="Where key.pem, certificate.pem and card.toml go.")] = Path("."),
    name: Annotated[str | None, typer.Option(help="How the others call this node, such as north.")] = None,
    organisation: Annotated[str | None, typer.Option(help="The organisation's full name.")] = None,
    address: Annotated[str | None, typer.Option(help="host:port where the others reach it, if they can.")] = None,
    relay: Annotated[str | None, typer.Option(help="https://host[:port] of a relay, if it is met there.")] = None,
    role: Annotated[RoleName, typer.Option(help="A dealer hands out masks and sees no data.")] = RoleName.party,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase of the key.")] = False,
    passphrase_file: Annotated[Path | None, typer.Option(help="Take the passphrase from this file.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make a new certificate and card of the key that is there.")
    ] = False,
) -> None:
    """Make this node's key, its certificate, and the card for the other members.

    The key stays here, readable by its owner alone. The card is public: send it to whoever joins the
    consortium's file.
    """
    from parties.governance.cards import make_card, read_card, write_card
    from parties.governance.keys import generate

    secret = _passphrase(passphrase, passphrase_file, confirm=not renew)
    if renew:
        old = read_card(directory / CARD_FILE)
        key = _renewed(directory, secret, name or old.name)
        card = make_card(
            key,
            name=name or old.name,
            organisation=organisation or old.organisation,
            role=old.role,
            address=address or old.address,
            relay=relay or old.relay,
        )
    else:
        if name is None or organisation is None:
            raise typer.BadParameter("a new key takes --name and --organisation")
        key = generate(name)
        # Made before anything is written, so that a name that is refused leaves nothing behind.
        card = make_card(key, name=name, organisation=organisation, role=role.value, address=address, relay=relay)
        key.save(directory, secret)
    write_card(card, directory / CARD_FILE)
    _tell_key(directory, key, renewed=renew)


def _passphrase(ask: bool, file: Path | None, *, confirm: bool) -> str | None:
    from parties.governance.keys import read_passphrase

    if ask and file is not None:
        raise typer.BadParameter("takes --passphrase or --passphrase-file, not both")
    if file is not None:
        return read_passphrase(file)
    if not ask:
        return None
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))


def _renewed(directory: Path, secret: str | None, name: str) -> NodeKey:
    from parties.governance.errors import KeyFileError
    from parties.governance.files import replace
    from parties.governance.keys import CERTIFICATE_FILE, KEY_FILE, certificate_pem, load

    old = load(directory / KEY_FILE, directory / CERTIFICATE_FILE, secret)
    key = old.renew(name)
    pem = certificate_pem(old.certificate).encode("ascii")
    replace(directory / PREVIOUS_FILE, pem, mode=0o644, what="certificate", error=KeyFileError)
    key.save_certificate(directory / CERTIFICATE_FILE)
    return key


def _tell_key(directory: Path, key: NodeKey, *, renewed: bool) -> None:
    from parties.governance.files import shown
    from parties.governance.keys import CERTIFICATE_FILE, KEY_FILE, expiry

    ends = expiry(key.certificate).ends.strftime("%Y-%m-%d")
    typer.echo(f"key id       {key.key_id}")
    if not renewed:
        typer.echo(f"key          {shown(directory / KEY_FILE)} (keep it here, and back it up)")
    typer.echo(f"certificate  {shown(directory / CERTIFICATE_FILE)} (valid until {ends})")
    typer.echo(f"card         {shown(directory / CARD_FILE)}")
    if renewed:
        typer.echo(
            "Send the card to all members, who run 'sottovoce consortium renew'. Restart this node once all have "
            f"done so; until then {PREVIOUS_FILE} is what they know."
        )
    else:
        typer.echo("Send the card to whoever runs 'sottovoce consortium join'.")


def join(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consortium's name.")],
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="The cards of all members.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("consortium.toml"),
) -> None:
    """Join the members' cards to one file, which all members copy."""
    from parties.governance.cards import read_card
    from parties.governance.consortium import join as join_cards
    from parties.governance.errors import ConsortiumError
    from parties.governance.files import shown

    consortium = join_cards([read_card(card) for card in cards], name)
    if out.exists():
        raise ConsortiumError(f"{shown(out)} exists already and is not overwritten: remove it, or name another file")
    _save(consortium, out)


def show(file: File) -> None:
    """Show the members, their certificates and the fingerprint."""
    import datetime

    from parties.governance.consortium import Consortium
    from parties.governance.keys import expiry
    from parties.identity import fingerprint

    consortium = Consortium.load(file)
    now = datetime.datetime.now(datetime.UTC)
    count = len(consortium.members)
    typer.echo(f"consortium {consortium.name}: {count} member{'' if count == 1 else 's'}")
    for one in consortium.members:
        typer.echo(f"\n{one.name} ({one.role})")
        typer.echo(f"  organisation  {one.organisation}")
        typer.echo(f"  where         {', '.join(filter(None, (one.address, one.relay))) or 'dials the others'}")
        typer.echo(f"  key id        {one.key_id}")
        for certificate in one.certificates:
            valid = expiry(certificate)
            state = valid.notice(now) or f"is valid until {valid.ends:%Y-%m-%d}"
            typer.echo(f"  certificate   {fingerprint(certificate)[:16]}... {state}")
    for gone in consortium.revoked:
        typer.echo(f"\n{gone.name} (revoked: {gone.reason})\n  key id        {gone.key_id}")
    typer.echo()
    _tell_fingerprint(consortium)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A consortium file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another copy.")],
) -> None:
    """Say what differs between two copies; the exit status is 1 if anything does."""
    from parties.governance.consortium import Consortium, differences

    a, b = Consortium.load(first), Consortium.load(second)
    found = differences(a, b)
    for sentence in found:
        typer.echo(sentence)
    if found:
        raise typer.Exit(1)
    typer.echo(f"the same: {a.fingerprint}")


def add(file: File, card: CardArgument) -> None:
    """Take in one more member."""
    from parties.governance.cards import read_card
    from parties.governance.consortium import Consortium

    _save(Consortium.load(file).add(read_card(card)), file)


def renew(
    file: File,
    card: Annotated[Path | None, typer.Argument(metavar="[CARD]", help="The member's new card.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Drop all certificates but the current ones.")] = False,
) -> None:
    """Take over a member's new certificate; the old one stays valid here until --prune."""
    from parties.governance.cards import read_card
    from parties.governance.consortium import Consortium

    if card is None and not prune:
        raise typer.BadParameter("takes a CARD, or --prune")
    consortium = Consortium.load(file)
    if card is not None:
        consortium = consortium.renew(read_card(card))
    _save(consortium.prune() if prune else consortium, file)


def revoke(
    file: File,
    who: Annotated[str, typer.Argument(metavar="NAME", help="The member, or its key id.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the file.")],
) -> None:
    """Take a member out and never trust its key again."""
    from parties.governance.consortium import Consortium

    _save(Consortium.load(file).revoke(who, reason), file)


def _save(consortium: Consortium, file: Path) -> None:
    from parties.governance.files import shown

    consortium.save(file)
    typer.echo(f"{shown(file)}: {', '.join(consortium.names) or 'no members'}")
    _tell_fingerprint(consortium)


def _tell_fingerprint(consortium: Consortium) -> None:
    typer.echo(f"fingerprint {consortium.fingerprint}")
    typer.echo("All members copy this file and read the fingerprint to each other by telephone before they use it.")
