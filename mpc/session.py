"""Joining a computation: the parties agree on seeds, then each has its seat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from mpc.errors import AgreementError, PeerError, SecurityError
from mpc.mac_check import Guard
from mpc.party import Party
from mpc.preprocessing.authenticated import AuthenticatedClient, AuthenticatedDealer, key_label
from mpc.preprocessing.dealer import DEALER_KEY, DealerClient
from mpc.preprocessing.prss import MOST_PARTIES, Prss, seed_sets, set_key
from mpc.preprocessing.serve import Dealer, serve
from mpc.prg import SEED_BYTES, Prg, new_seed

if TYPE_CHECKING:
    from mpc.preprocessing import Preprocessing
    from mpc.prg import RandomStream
    from mpc.transport import Transport

PROTOCOL_VERSION = 1
PREPROCESSINGS = ("dealer", "prss", "ot")
SECURITIES = ("semi-honest", "malicious")
_HELLO_LIMIT = 1024


class StreamSource(Protocol):
    """What a seed opens: streams by label."""

    def stream(self, label: str, position: int = 0) -> RandomStream:
        """Open the stream of a label."""


# Makes a source from the name of a seed and the seed; tests put in sources whose streams they choose.
MakeSource = Callable[[str, bytes], StreamSource]


def _from_prg(name: str, seed: bytes) -> StreamSource:
    return Prg(seed)


def check_preprocessing(preprocessing: str, size: int) -> None:
    """Refuse a preprocessing that this number of parties cannot use.

    Raises
    ------
    ValueError
        Saying what to use instead.
    """
    if preprocessing not in PREPROCESSINGS:
        raise ValueError(f"preprocessing is one of {', '.join(PREPROCESSINGS)}, not {preprocessing!r}")
    if size < 2:
        raise ValueError("a computation has at least two parties")
    if preprocessing == "prss" and not 3 <= size <= MOST_PARTIES:
        raise ValueError(
            f"'prss' needs an honest majority among 3 to {MOST_PARTIES} parties, here are {size}: use 'ot', or 'dealer'"
        )


def check_security(security: str, preprocessing: str) -> None:
    """Refuse a security model that there is not, or not with this preprocessing.

    Raises
    ------
    SecurityError
        Saying what to use instead.
    """
    if security not in SECURITIES:
        raise SecurityError(f"security is one of {', '.join(SECURITIES)}, not {security!r}")
    if security == "malicious" and preprocessing == "prss":
        raise SecurityError(
            "security='malicious' does not run with preprocessing='prss', whose masks have no MACs: "
            "use preprocessing='dealer' or 'ot', or security='semi-honest'"
        )


async def join(
    transport: Transport,
    *,
    preprocessing: str,
    security: str = "semi-honest",
    make_source: MakeSource = _from_prg,
) -> Party:
    """Take our seat: agree on what is computed with, and on seeds.

    Parameters
    ----------
    transport : Transport
        Authenticated, private links to all parties (and the dealer).
    preprocessing : {"dealer", "prss", "ot"}
        The same at all parties.
    security : {"semi-honest", "malicious"}
        Whether all parties follow the program, or may do as they please; the same at all parties, and the dealer.
    make_source : callable
        For tests.

    Raises
    ------
    AgreementError
        The parties name different preprocessings or security models, or speak different versions.
    SecurityError
        See :func:`check_security`.
    PeerError
        A party is late or sends nonsense.

    Notes
    -----
    Each pair of parties derives a seed from 32 random bytes of each, so that one honest party of a pair
    suffices for it to be uniform. With prss, the first member of each set draws the set's seed; with ot, each pair
    makes its base transfers (:func:`mpc.ot.meeting.meet`).
    Cost: 1 round, 2 with prss, 5 with ot.
    """
    size, rank = transport.size, transport.rank
    check_preprocessing(preprocessing, size)
    check_security(security, preprocessing)
    seeds: dict[str, bytes] = {}
    others = [other for other in range(size) if other != rank]

    # 1. Hello: version, preprocessing and our half of the pairwise seed.
    model = [] if security == "semi-honest" else [security]
    terms = json.dumps([PROTOCOL_VERSION, preprocessing, size, *model]).encode()
    halves = {other: new_seed() for other in others}
    for other in others:
        await transport.send(other, "join/hello", halves[other] + terms)
    for other in others:
        hello = bytes(await transport.receive_upto(other, "join/hello", _HELLO_LIMIT))
        if len(hello) < SEED_BYTES:
            raise PeerError(f"party {other} sent no valid hello", rank=other, step="join/hello")
        if hello[SEED_BYTES:] != terms:
            raise AgreementError(_difference(hello[SEED_BYTES:], other, rank, preprocessing, security))
        first, second = (halves[other], hello[:SEED_BYTES]) if rank < other else (hello[:SEED_BYTES], halves[other])
        pair = f"pair {min(rank, other)}-{max(rank, other)}"
        seeds[pair] = hashlib.blake2b(first + second, digest_size=SEED_BYTES, person=b"sottovoce.pair").digest()

    # 2. Seeds of the preprocessing.
    source: Preprocessing
    if preprocessing == "prss":
        ours = [members for members in seed_sets(size) if rank in members]
        for members in ours:
            if members[0] == rank:
                seeds[set_key(members)] = new_seed()
                for other in members[1:]:
                    await transport.send(other, f"join/{set_key(members)}", seeds[set_key(members)])
        for members in ours:
            if members[0] != rank:
                received = await transport.receive(members[0], f"join/{set_key(members)}", SEED_BYTES)
                seeds[set_key(members)] = bytes(received)
        source = Prss(rank, size)
    elif preprocessing == "ot":
        from mpc.ot.meeting import meet
        from mpc.preprocessing.authenticated_ot import AuthenticatedOt
        from mpc.preprocessing.ot import OWN_KEY, Ot

        seeds[OWN_KEY] = new_seed()
        sessions = {other: _session_of(seeds, rank, other) for other in others}
        pairs = await meet(transport, sessions, malicious=security == "malicious")
        source = Ot(rank, size, pairs) if security == "semi-honest" else AuthenticatedOt(pairs)
    else:
        seeds[DEALER_KEY] = bytes(await transport.receive(size, "join/dealer", SEED_BYTES))
        source = DealerClient(rank, size) if security == "semi-honest" else AuthenticatedClient(rank, size)

    sources = {name: make_source(name, seed) for name, seed in seeds.items()}
    party = Party(rank, size, transport, source, lambda key, label: sources[key].stream(label))
    if security == "malicious":
        _guard(party, sources)
    return party


def _guard(party: Party, sources: Mapping[str, StreamSource]) -> None:
    """Give a party what it keeps to catch cheaters; its summands of keys come from what no other party knows."""
    if party.preprocessing.name != "ot":
        party.guard = Guard(lambda field: sources[DEALER_KEY].stream(key_label(field)))
        party.checks = party.at("checks")
        return
    from mpc.ot.macs import OWN_KEY
    from mpc.preprocessing.authenticated_ot import AuthenticatedOt

    party.guard = Guard(
        lambda field: sources[OWN_KEY].stream(key_label(field)), AuthenticatedOt.require, has_waves=False
    )
    party.checks = party.at("checks")
    if isinstance(party.preprocessing, AuthenticatedOt):
        party.preprocessing.sit(party)


def _session_of(seeds: dict[str, bytes], rank: int, other: int) -> bytes:
    """Return a name for this meeting of a pair, fresh in every session and the same at both."""
    seed = seeds[f"pair {min(rank, other)}-{max(rank, other)}"]
    return hashlib.blake2b(seed, digest_size=SEED_BYTES, person=b"sottovoce.ot").digest()


def _difference(terms: bytes, other: int, rank: int, preprocessing: str, security: str) -> str:
    try:
        version, theirs, size, *model = json.loads(terms)
        known = theirs if theirs in PREPROCESSINGS else "unknown"
        if (model or ["semi-honest"]) != [security]:
            known += f", security {model[0] if model and model[0] in SECURITIES else 'semi-honest'}"
        said = f"version {int(version)}, preprocessing {known}, {int(size)} parties"
    except (ValueError, TypeError, OverflowError, RecursionError):
        said = "something unreadable"
    return (
        f"party {other} joins with {said}; party {rank} with version {PROTOCOL_VERSION}, preprocessing "
        f"{preprocessing}: all must run the same study"
    )


async def serve_dealer(
    transport: Transport, *, security: str = "semi-honest", make_source: MakeSource = _from_prg
) -> None:
    """Be the dealer of one session: hand out seeds, answer requests until all parties have left.

    What is dealt has MACs if ``security`` is ``"malicious"``, as the parties must have it, too.

    Raises
    ------
    PeerError
        A party is late, gone, or asks for something that no program asks for.
    """
    check_security(security, "dealer")
    seeds = [new_seed() for _ in range(transport.size)]
    for rank, seed in enumerate(seeds):
        await transport.send(rank, "join/dealer", seed)
    sources = [make_source(f"dealer {rank}", seed) for rank, seed in enumerate(seeds)]
    make = Dealer if security == "semi-honest" else AuthenticatedDealer
    dealer = make(transport.size, lambda rank, label, position: sources[rank].stream(label, position))
    await serve(transport, dealer)
