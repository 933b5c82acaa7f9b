"""What all parties of a protocol must know alike, and what each declares of itself, before anything is shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mpc import AgreementError, Party, PeerError
from protocols.cheating import refuse_unexamined

_MESSAGE_LIMIT = 256 * 1024
_LARGEST_COUNT = 1 << 40


async def agree(
    party: Party, protocol: str, terms: Mapping[str, object], counts: Mapping[str, int] | None = None
) -> list[dict[str, int]]:
    """Check that all parties run the same protocol with the same parameters, and collect their counts.

    Parameters
    ----------
    party : Party
    protocol : str
        What is about to run.
    terms : mapping
        Public parameters that must be the same at all parties; anything that JSON holds.
    counts : mapping of str to int
        What each party declares of itself, such as its number of rows. All parties learn it.

    Returns
    -------
    list of dict
        The counts of all parties, in rank order.

    Raises
    ------
    AgreementError
        Naming the first parameter that differs, and the party.
    PeerError
        A peer sent what is no declaration.
    SecurityError
        Before anything is sent: the protocol has not been shown to hold where parties may cheat; see
        :mod:`protocols.cheating`.

    Notes
    -----
    Cost: 1 round; one short message to each party; no element.
    """
    refuse_unexamined(party, protocol, terms)
    ours = dict(counts or {})
    common = {"protocol": protocol, **{name: _plain(value) for name, value in terms.items()}}
    message = json.dumps([common, ours], separators=(",", ":")).encode()
    if len(message) > _MESSAGE_LIMIT:
        raise ValueError(f"the public parameters of {protocol} take {len(message)} bytes, above {_MESSAGE_LIMIT}")
    scope = party.at("agree")
    step, cost = scope.next_step("terms"), scope.cost_of("terms")
    cost.rounds += 1
    for other in party.others:
        await scope.send(other, step, message, cost)
    declared = {party.rank: ours}
    heard = {party.rank: message}
    for other in party.others:
        data = heard[other] = bytes(await scope.transport.receive_upto(other, step, _MESSAGE_LIMIT))
        try:
            theirs, their_counts = json.loads(data)
        except (TypeError, ValueError, RecursionError):
            theirs, their_counts = None, None
        if not (isinstance(theirs, dict) and _are_counts(their_counts)):
            raise PeerError(f"party {other} sent no valid terms at step {step!r}", rank=other, step=step)
        _compare(common, theirs, other, party.rank)
        if their_counts.keys() != ours.keys():
            raise PeerError(f"party {other} sent other counts than asked at step {step!r}", rank=other, step=step)
        declared[other] = their_counts
    scope.heard(step, heard)
    return [declared[rank] for rank in range(party.size)]


async def announce(party: Party, name: str, ours: Mapping[str, object]) -> list[dict[str, Any]]:
    """Tell all parties what only we know, such as the names of our columns, and hear what they tell.

    Parameters
    ----------
    party : Party
    name : str
        Names the step.
    ours : mapping
        Anything that JSON holds. All parties learn it.

    Returns
    -------
    list of dict
        What the parties say, in rank order: a JSON object each, and otherwise unchecked.

    Raises
    ------
    PeerError
        A peer sent no object.

    Notes
    -----
    Cost: 1 round; one short message to each party; no element.
    """
    message = json.dumps(ours, separators=(",", ":")).encode()
    if len(message) > _MESSAGE_LIMIT:
        raise ValueError(f"what is announced of {name} takes {len(message)} bytes, above {_MESSAGE_LIMIT}")
    scope = party.at("announce")
    step, cost = scope.next_step(name), scope.cost_of(name)
    cost.rounds += 1
    for other in party.others:
        await scope.send(other, step, message, cost)
    said: dict[int, dict[str, Any]] = {party.rank: json.loads(message)}
    heard = {party.rank: message}
    for other in party.others:
        data = heard[other] = bytes(await scope.transport.receive_upto(other, step, _MESSAGE_LIMIT))
        try:
            theirs = json.loads(data)
        except (ValueError, RecursionError):
            theirs = None
        if not isinstance(theirs, dict):
            raise PeerError(f"party {other} announced nothing valid at step {step!r}", rank=other, step=step)
        said[other] = theirs
    scope.heard(step, heard)
    return [said[rank] for rank in range(party.size)]


def _plain(value: object) -> object:
    """Return what JSON makes of a value, so that both sides compare the same."""
    return json.loads(json.dumps(value))


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(c) is int and 0 <= c < _LARGEST_COUNT for c in value.values())


def _compare(ours: dict[str, Any], theirs: dict[str, Any], other: int, rank: int) -> None:
    for name, value in ours.items():
        if name not in theirs or theirs[name] != value:
            said = _shown(theirs[name]) if name in theirs else "nothing"
            raise AgreementError(
                f"{ours['protocol']}: party {other} says {name} = {said}, party {rank} says {name} = {_shown(value)}: "
                "the parameters are agreed in the study"
            )
    for name in theirs.keys() - ours.keys():
        raise AgreementError(
            f"{ours['protocol']}: party {other} says {_shown(name)[1:-1]} = {_shown(theirs[name])}, party {rank} says "
            f"{_shown(name)[1:-1]} = nothing: the parameters are agreed in the study"
        )


def _shown(value: Any) -> str:
    """Show a public parameter, also a peer's, in a form that is fit for a log."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
