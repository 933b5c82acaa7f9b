"""Checking MACs: before a party tells a result, it makes sure that everything opened so far was opened rightly.

What was opened is noted: the public value c_j that we saw, and our summand m_j of its MAC. A check takes all that
was noted since the last one. The parties toss a coin chi that nobody could foresee, each computes
``sigma_i = sum_j chi^j (m_ij - alpha_i c_j)``, and these, committed to before any is shown, must sum up to zero
(Damgard, Keller, Larraia, Pastro, Scholl, Smart, ESORICS 2013, section 3.1 and appendix B).

Why it is sound. Let all parties but k, or fewer, cheat, and let k have seen ``c_j + d_j`` where ``c_j`` would have
followed from what it saw before. To the others, what k holds is uniform given the sums, so all they can do is shift
sums: of what k sees, by d_j, and of all sigma by some E of their choice, also after chi is known. MACs of k depend on
its key alpha_k and on what the others know, and nothing that k sent depends on them. So the sum of all sigma is
``E - alpha_k P(chi)`` for a polynomial P that is fixed when chi is tossed: k shows its part of the coin only once it
has seen everything that is checked, and chi is unknown until all parts are shown. At the power of the first j with
``d_j != 0``, P has the coefficient d_j; what k computed from it has other powers. So P is not zero, and the sum is
zero only if ``P(chi) = 0``, with probability at most degree / p, or if alpha_k, which is uniform to the others, is the
one element that makes it so: probability 1/p. Further honest parties have keys of their own, which add terms of the
same kind; that they saw other values than k changes nothing, so what was opened needs no comparison.

A piece of 2^20 values has a degree below 2^20 + 1, and further pieces have coins of their own. So whatever is wrong
passes with probability below ``(2^20 + 2) / p``: 2^-106 in F127, 2^-40.9 in F61. Packed bits, whose MACs have 64 bits,
are combined in another way (:mod:`mpc.authenticated_words`): 2^-44.9. Who fails once has ended the run: these are the
numbers for a run, not for an opening. They are for a dealer's MACs, of which honest parties send nothing; where parties
make MACs themselves (:mod:`mpc.ot.macs`), and what they send depends on keys, that bound is the weaker one.

What sigma_i tell. Each has a fresh sharing of zero added, so only their sum is seen; it is what the cheaters put in. If
the check fails, the sum may tell about alpha, and the run ends: a guard that has failed once opens nothing any more.

Public announcements (headers of inputs, masked inputs, terms, names) have no MACs. Each party hashes what it heard of
whom at which step, and these hashes are compared in the check, before anything is opened on the strength of it. Where
scopes run side by side, one honest party may have heard what another one has not yet: it keeps the hash until the other
has it, and the other sends nothing that rests on it before its own next check.

When checks happen: before anything is opened as a result, and after, before it is used; before anything is opened
under a mask that hides only values of bounded size (a shift that somebody put in earlier could make it larger); and
when 2^20 values have been noted in one scope. Checks are numbered through the session. Scopes that run side by side
may come to a check with different notes; then they check all that any of them has noted.

What it does not give: who cheated is not found out; a cheater can stop the run, also after it has learnt a result
that was opened to it, and can stop it for some only.
Cost: 4 rounds; 192 bytes to each other party, and an element of each field; 1 round where nothing was opened. 1 more
where notes differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpc.authenticated import Authenticated
from mpc.authenticated_words import authenticated
from mpc.coins import DIGEST_BYTES, broken, commitment, digest_of, exchange
from mpc.errors import CheatingError, PeerError, SecurityError
from mpc.prg import Prg, new_seed
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.prg import RandomStream
    from mpc.transport import Buffer

# So many values are combined with the powers of one coin; the next get another.
PIECE = 1 << 20
# A cheater passes with probability 2^20 / p: fields have at least so many bits.
LEAST_BITS = 61
_AGAIN = "a check failed before: nothing more is opened"


class Noted(NamedTuple):
    """What was opened at one step."""

    field: Authenticated
    opened: FieldArray
    macs: FieldArray


class Guard:
    """What one party keeps to catch cheaters, the same object at all its seats of a session.

    Parameters
    ----------
    open_key : callable
        Opens the stream that our summand of a field's key comes from.
    require : callable, optional
        Refuses fields that the preprocessing gives no MACs over.
    has_waves : bool
        Whether the preprocessing gives waves of masks.
    """

    def __init__(
        self,
        open_key: Callable[[Field], RandomStream],
        require: Callable[[Field], None] | None = None,
        *,
        has_waves: bool = True,
    ) -> None:
        self._open_key = open_key
        self._require = require
        self.has_waves = has_waves
        self._fields: dict[str, Authenticated] = {}
        self._notes: dict[str, Noted | str] = {}
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._lock = asyncio.Lock()
        self._failed = False

    def __repr__(self) -> str:
        return f"Guard({len(self._notes)} notes)"

    def over(self, field: Field) -> Field:
        """Return the field with MACs under our key."""
        if isinstance(field, Authenticated):
            return field
        ours = self._fields.get(field.name)
        if ours is None:
            if field.bits < LEAST_BITS:
                raise SecurityError(f"security='malicious' takes F61 or F127: a MAC over {field} is soon guessed")
            if self._require is not None:
                self._require(field)
            key = self._open_key(field).elements(field, (1,)).reshape(())
            ours = self._fields[field.name] = authenticated(field, key)
        return ours

    # ---- notes ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def under_way(self, step: str) -> Iterator[None]:
        """Say that we take part in a step, which will be noted at the end."""
        if self._failed:
            raise CheatingError(_AGAIN)
        ended = self._under_way[step] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._under_way[step]
            if not ended.done():
                ended.set_result(None)

    def stop(self) -> None:
        """Open nothing any more: some other check has failed."""
        self._failed = True

    def note(self, step: str, field: Field, opened: FieldArray, macs: FieldArray | None) -> None:
        """Note what was opened, and our summands of its MACs."""
        if not isinstance(field, Authenticated) or macs is None:
            raise TypeError("what has no MACs is not opened where parties may cheat")
        self._notes[step] = Noted(field, opened, macs)

    def announced(self, step: str, said: Mapping[int, Buffer]) -> None:
        """Note what parties said to all at a step."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"sottovoce.said")
        for rank in sorted(said):
            digest.update(f"{rank} {len(bytes(said[rank]))}\n".encode())
            digest.update(said[rank])
        self._notes[step] = digest.hexdigest()

    # ---- checks -----------------------------------------------------------------------------------

    async def check(self, seat: Party) -> None:
        """Check all notes, together with all others.

        Parameters
        ----------
        seat : Party
            Ours in the scope of checks, the same for all of the session.

        Raises
        ------
        CheatingError
            Something was opened or announced that does not hold. Who cheated is not known.
        PeerError
            A party is late, gone, or showed something else than it had committed to.
        """
        async with self._lock:
            if self._failed:
                raise CheatingError(_AGAIN)
            try:
                await self._check(seat)
            except BaseException:
                self._failed = True
                raise

    async def _check(self, seat: Party) -> None:
        step, cost = seat.next_step("check"), seat.cost_of("check")

        # 1. Commit to a part of the coin, and say what is to be checked.
        steps = sorted(self._notes)
        scope, part = self._digest(steps), new_seed()
        cost.rounds += 1
        hello = await exchange(seat, f"{step}.notes", scope + commitment(step, seat.rank, part), cost)
        if any(said[:DIGEST_BYTES] != scope for said in hello.values()):
            steps = await self._all_steps(seat, step, steps)
        notes = [self._notes.pop(name) for name in steps]
        opened = [(name, note) for name, note in zip(steps, notes, strict=True) if isinstance(note, Noted)]
        if not opened:
            return

        # 2. Toss the coin: all that is checked has been seen by all who show their part of it.
        cost.rounds += 1
        parts = await exchange(seat, f"{step}.coin", part, cost)
        for other in seat.others:
            if hello[other][DIGEST_BYTES:] != commitment(step, other, parts[other]):
                raise broken(other, step)
        coin = digest_of(step.encode(), *(parts[rank] for rank in sorted(parts)), self._scope(steps))

        # 3. Commit to our sum of what should be zero, then show it.
        sums = _sums(seat, Prg(coin), [note for _, note in opened])
        proof = b"".join(bytes(base.to_bytes(value)) for base, value in sums) + new_seed()
        cost.rounds += 2
        commitments = await exchange(seat, f"{step}.commit", commitment(step, seat.rank, proof) + coin, cost)
        if any(said[DIGEST_BYTES:] != coin for said in commitments.values()):
            raise CheatingError("the parties do not agree on what is checked: some party told others different things")
        shown = await exchange(seat, f"{step}.sum", proof, cost)
        for other in seat.others:
            if commitments[other][:DIGEST_BYTES] != commitment(step, other, shown[other]):
                raise broken(other, step)
        start = 0
        for base, _ in sums:
            stop = start + base.element_bytes
            if not _is_zero(base, [shown[rank][start:stop] for rank in sorted(shown)], step):
                raise CheatingError(
                    f"the check of {len(opened)} openings failed in {base}: some party changed what was opened"
                )
            start = stop

    def _digest(self, steps: Sequence[str]) -> bytes:
        return digest_of(json.dumps([[name, self._said(name)] for name in steps]).encode())

    @staticmethod
    def _scope(steps: Sequence[str]) -> bytes:
        return json.dumps(list(steps)).encode()

    def _said(self, name: str) -> str | int:
        note = self._notes[name]
        return note if isinstance(note, str) else int(note.opened.size)

    async def _all_steps(self, seat: Party, step: str, steps: Sequence[str]) -> list[str]:
        """Agree on what is checked now, where notes differ: all openings that any party has noted.

        Who has noted an opening has our part of it: if we are not through, we are in the middle of it, and wait.
        An announcement may have reached others and not us: it is compared by those who have heard it, and kept until
        all say that they have.
        """
        cost = seat.cost_of("check")
        cost.rounds += 1
        ours = json.dumps({name: self._said(name) for name in steps}).encode()
        if len(ours) > CHUNK_BYTES:
            raise CheatingError("more was opened side by side than a check can tell: check more often")
        lists = await exchange(seat, f"{step}.list", ours, cost, upto=CHUNK_BYTES)
        known: dict[str, str | int] = {}
        heard: dict[str, int] = {}
        for rank, said in sorted(lists.items()):
            try:
                listed = json.loads(said)
                if not (isinstance(listed, dict) and all(type(what) in (str, int) for what in listed.values())):
                    raise ValueError("no list")
            except (ValueError, RecursionError):
                raise PeerError(f"party {rank} sent no list of notes at {step!r}", rank=rank, step=step) from None
            for name, what in listed.items():
                heard[name] = heard.get(name, 0) + 1
                if known.setdefault(name, what) != what:
                    raise CheatingError(_unlike(name))
        chosen = [name for name in sorted(known) if isinstance(known[name], int) or heard[name] == seat.size]
        for name in chosen:
            under_way = self._under_way.get(name)
            if name not in self._notes and under_way is not None:
                await under_way
            if name not in self._notes or self._said(name) != known[name]:
                raise CheatingError(_unlike(name))
        return chosen


def _unlike(name: str) -> str:
    return f"the parties did not hear or see the same at step {name!a}: some party cheats"


def _sums(seat: Party, coins: Prg, notes: Sequence[Noted]) -> list[tuple[Field, FieldArray]]:
    """Return our sum in each field, one element, with a fresh sharing of zero."""
    by_field: dict[str, list[Noted]] = {}
    for note in notes:
        by_field.setdefault(note.field.name, []).append(note)
    sums = []
    for name in sorted(by_field):
        ours = by_field[name]
        field = ours[0].field
        base = field.public

        def coin(piece: int, name: str = name, base: Field = base) -> FieldArray:
            return coins.stream(f"{name} {piece}").elements(base, (1,))

        total = field.discrepancy([(note.opened, note.macs) for note in ours], coin, PIECE)
        sums.append((base, base.add(total, seat.zero_share(base, (1,)))))
    return sums


def _is_zero(base: Field, shown: Sequence[bytes], step: str) -> bool:
    total = base.zeros((1,))
    for rank, data in enumerate(shown):
        try:
            total = base.add(total, base.from_bytes(data, (1,)))
        except ValueError:
            raise PeerError(f"party {rank} sent no sum at step {step!r}", rank=rank, step=step) from None
    return bool(base.equal(total, base.zeros((1,))).all())
