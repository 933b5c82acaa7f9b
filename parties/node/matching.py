"""Material between parties: which batches all of them have, made together and used together.

All that is said is names, states and hashes of public facts. Whatever the parties do not all have, whole and unspent
and of the same structure, is discarded by all of them. So they agree on what is left after every meeting, whoever was
killed at what moment before it; and a store that was taken back in time shows, since the others have spent what it
still offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mmap
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mpc.errors import PeerError
from mpc.plan import MOST_BYTES, Plan, make
from mpc.stock import Record, StockError, Tally, decode, encode, end, stocked
from mpc.transport import CHUNK_BYTES
from parties.node.batches import FOLLOWS, UNSPENT, BatchError, is_batch_name
from parties.node.depot import Offer, matching_hash
from parties.node.sealing import Opener, Sealer, SealError

if TYPE_CHECKING:
    from mpc.party import Party
    from mpc.prepare import Stock
    from mpc.preprocessing import Preprocessing
    from mpc.transport import Transport

MOST_OFFERS = 512
_OFFERS_BYTES = 200 * 1024
_HASH_BYTES = 64
_MOST_ROOM = 1 << 30

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What keeps batches for us: a depot, or the node that has one."""

    async def offers(self) -> list[Offer]:
        """Return what we have."""

    async def discard(self, name: str, why: str) -> None:
        """Never use a batch."""

    async def begin(self, name: str) -> Sealer:
        """Begin a batch; the ledger says so when this returns."""

    async def made(self, name: str, matching: str, products: int) -> None:
        """It is whole; it is on the disk when this returns."""

    async def ready(self, name: str) -> None:
        """All have it."""

    async def spend(self, name: str) -> Opener:
        """Spend a batch, then read it; the ledger says so when this returns."""

    async def close(self) -> bool:
        """Read no more of a batch; returns whether it was what we had written."""


class Agreement(NamedTuple):
    """What all parties have, the oldest first; and what we have to discard, and why."""

    common: list[str]
    discard: dict[str, str]


async def agree(transport: Transport, ours: Sequence[Offer]) -> Agreement:
    """Compare what the parties have.

    Parameters
    ----------
    transport : Transport
    ours : sequence of Offer
        What we have, and what we had.

    Returns
    -------
    Agreement
        The same ``common`` at all parties.

    Raises
    ------
    PeerError
        A party sent what are no offers, or a peer is gone.

    Notes
    -----
    Cost: 1 round. Reveals names, states and hashes of batches, which the parties made together.
    """
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    unspent = [one for one in ours if one.state in UNSPENT][:MOST_OFFERS]
    rest = [one for one in ours if one.state not in UNSPENT][: MOST_OFFERS - len(unspent)]
    told = json.dumps([[one.name, one.state, one.matching] for one in (*unspent, *rest)]).encode()
    for other in others:
        await transport.send(other, "material/offers", told)
    everybody: dict[int, dict[str, Offer]] = {transport.rank: {one.name: one for one in (*unspent, *rest)}}
    for other in others:
        data = bytes(await transport.receive_upto(other, "material/offers", _OFFERS_BYTES))
        everybody[other] = _offers(data, other)
    usable = {
        name
        for name, offer in everybody[0].items()
        if all(_has(everybody[rank].get(name), offer.matching) for rank in range(transport.size))
    }
    discard = {one.name: _why(one, everybody) for one in unspent if one.name not in usable}
    return Agreement([name for name in everybody[0] if name in usable], discard)


def _has(offer: Offer | None, matching: str) -> bool:
    return offer is not None and offer.state in UNSPENT and offer.matching == matching


def _why(ours: Offer, everybody: Mapping[int, Mapping[str, Offer]]) -> str:
    for rank, offers in everybody.items():
        theirs = offers.get(ours.name)
        if theirs is None:
            return f"party {rank} does not have it"
        if theirs.state == "spent":
            return (
                f"party {rank} has spent it: it was stopped half-way, or this node's store was taken back in time "
                "(restored from a backup)"
            )
        if theirs.state not in UNSPENT:
            return f"party {rank} has discarded it"
        if theirs.matching != ours.matching:
            return f"party {rank} has another one of this name"
    return "not all have it"


def _offers(data: bytes, rank: int) -> dict[str, Offer]:
    try:
        content = json.loads(data)
        if not isinstance(content, list):
            raise TypeError("no list")
        offers = [Offer(*map(_text, one)) for one in content]
        for one in offers:
            if not is_batch_name(one.name) or one.state not in FOLLOWS:
                raise ValueError("no batch")
            if len(one.matching) > _HASH_BYTES:
                raise ValueError("no hash")
        if len(offers) > MOST_OFFERS:
            raise ValueError("too many")
    except (TypeError, ValueError, RecursionError):
        raise PeerError(f"party {rank} sent no valid list of material", rank=rank, step="material/offers") from None
    return {one.name: one for one in offers}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


async def _say(transport: Transport, step: str, word: bytes, longest: int) -> dict[int, bytes]:
    """Tell all others a word, and hear theirs."""
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    for other in others:
        await transport.send(other, step, word)
    return {other: bytes(await transport.receive_upto(other, step, longest)) for other in others}


# ---- using ----------------------------------------------------------------------------------------


async def use(party: Party, keeper: Keeper, tell: Callable[[str], Any] = log.info) -> str | None:
    """Match what is left with the others, spend one batch, and let the party take from it.

    Parameters
    ----------
    party : Party
        That has just joined a session with "ot".
    keeper : Keeper
    tell : callable
        Told what becomes of batches, for people.

    Returns
    -------
    str or None
        The name of the batch; None if there is none that all have, or it cannot be read somewhere, or does not fit
        into the memory there: all goes on without it then.

    Notes
    -----
    Cost: 2 rounds. "spent" is on our disk before a byte of the file is read, whatever the others do. Who cannot say
    what it has says that it has nothing, so that nobody waits for it.
    """
    transport = party.transport
    try:
        ours = await keeper.offers()
    except BatchError as error:
        tell(f"no material is used: {error}")
        ours = []
    found = await agree(transport, ours)
    for name, why in found.discard.items():
        tell(f"material {name} is discarded: {why}")
        try:
            await keeper.discard(name, why)
        except BatchError as error:  # it is not used now, and the next time the others say the same of it
            tell(f"material {name} cannot be discarded: {error}")
    if not found.common:
        return None
    name = found.common[0]
    stock = await _read(party, keeper, name, tell)
    heard = await _say(transport, "material/read", b"n" if stock is None else b"y", 1)
    missing = [rank for rank, word in heard.items() if word != b"y"]
    if stock is None or missing:
        tell(f"material {name} is not used: {'we' if stock is None else f'party {missing[0]}'} cannot read it")
        return None
    party.preprocessing = stock
    return name


async def _read(party: Party, keeper: Keeper, name: str, tell: Callable[[str], Any]) -> Stock | None:
    stock = None
    try:
        try:
            opener = await keeper.spend(name)
            stock = await asyncio.to_thread(_load, party.preprocessing, opener, name)
        finally:
            is_ours = await keeper.close()
        if stock is None:
            raise MemoryError
        if not is_ours:
            raise StockError("it is not what was written")
    except MemoryError:
        tell(f"material {name} does not fit into the memory that this process may use")
        return None
    except (SealError, StockError, BatchError, OSError) as error:
        tell(f"material {name}: {error}")
        return None
    return stock


def _load(source: Preprocessing, opener: Opener, name: str) -> Stock | None:
    """Read a batch, in a thread; None if it does not fit into our memory.

    Nothing of it is left then when this returns: whoever caught the error later would have the frames that hold what
    was read so far, as long as it has the error, and little memory to go on with.
    """
    try:
        with _room_for_the_rest():
            stock = stocked(source, decode(opener.read, Tally()), name)
            opener.finish()
    except MemoryError:
        return None
    return stock


@contextlib.contextmanager
def _room_for_the_rest() -> Iterator[None]:
    """Hold a part of the memory that this process may use, for what comes after.

    A study with material computes, too. And what did not fit is not all ours again when it is let go of: the C library
    keeps freed memory for this thread, and neither another thread's stack nor a large array can be made of it.

    Raises
    ------
    MemoryError
        So much is not left.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY:
        yield
        return
    try:
        held = mmap.mmap(-1, min(most // 4, _MOST_ROOM), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError from None
    with held:  # never touched: it counts, and takes no memory
        yield


# ---- making ---------------------------------------------------------------------------------------


async def share_plan(transport: Transport, find: Callable[[], Awaitable[Plan]]) -> Plan:
    """Let the first party find the plan, and tell it.

    Raises
    ------
    PeerError
        The first party sent no plan.
    """
    if transport.rank == 0:
        plan = await find()
        data = plan.to_bytes()
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for other in range(1, transport.size):
            await transport.send(other, "material/plan", len(data).to_bytes(8, "big"))
        for number, piece in enumerate(pieces):
            for other in range(1, transport.size):
                await transport.send(other, f"material/plan.{number}", piece)
        return plan
    length = int.from_bytes(await transport.receive(0, "material/plan", 8), "big")
    if length > MOST_BYTES:
        raise PeerError("party 0 sent a plan that is too long", rank=0, step="material/plan")
    told = bytearray()
    for number, start in enumerate(range(0, length, CHUNK_BYTES)):
        told += await transport.receive(0, f"material/plan.{number}", min(CHUNK_BYTES, length - start))
    try:
        return Plan.from_bytes(bytes(told))
    except ValueError as error:
        raise PeerError(f"party 0 sent no valid plan: {error}", rank=0, step="material/plan") from None


async def produce(
    party: Party,
    keeper: Keeper,
    plan: Plan,
    *,
    study: str,
    session: bytes,
    runs: int,
    tell: Callable[[str], Any] = log.info,
) -> list[str]:
    """Make batches of material, one for each run, and keep them.

    Parameters
    ----------
    party : Party
        That has just joined a session with "ot".
    keeper : Keeper
    plan : Plan
        The same at all parties.
    study : str
        Hash of the study that it is for.
    session : bytes
        The session's 16 bytes: batches are called after it.
    runs : int
        How many.
    tell : callable
        Told how far it is, for people.

    Returns
    -------
    list of str
        Names of the batches.

    Raises
    ------
    PeerError
        A peer is gone, or made something else.

    Notes
    -----
    A batch is written to the disk by each party ("made") before it says so, and is "ready" once all have said so.
    What is half-made when anything fails is discarded.
    """
    found = await agree(party.transport, await keeper.offers())
    for name, why in found.discard.items():
        tell(f"material {name} is discarded: {why}")
        await keeper.discard(name, why)
    names = []
    for number in range(runs):
        name = f"{session.hex()}-{number}"
        began = time.monotonic()
        tally = Tally()
        sealer = await keeper.begin(name)
        try:

            async def keep(record: Record, sealer: Sealer = sealer, tally: Tally = tally) -> None:
                for part in encode(record, tally):
                    sealer.add(part)

            await make(party.at("material"), plan, keep)
            sealer.add(end())
            sealer.finish()
            matching = matching_hash(
                study=study, batch=name, parties=party.size, structure=tally.structure, products=tally.products
            )
            await keeper.made(name, matching, tally.products)
        except BaseException:
            await keeper.discard(name, "it was not finished")
            raise
        heard = await _say(party.transport, f"material/made.{number}", matching.encode(), _HASH_BYTES)
        for rank, theirs in heard.items():
            if theirs != matching.encode():
                await keeper.discard(name, f"party {rank} made something else")
                raise PeerError(f"party {rank} made other material", rank=rank, step=f"material/made.{number}")
        await keeper.ready(name)
        names.append(name)
        tell(f"material {name}: {tally.products} entries of products in {time.monotonic() - began:.1f} s")
    return names
