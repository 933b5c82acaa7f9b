"""One attempt of one study, as its worker computes it: from the first connection to the last goodbye."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from mpc.errors import AgreementError, SottovoceError
from mpc.session import join, serve_dealer
from mpc.stock import KEPT
from parties.node.keepers import NoKeeper
from parties.node.matching import produce, share_plan, use
from parties.node.messages import Assigned, Begin, MemberAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpc.party import Party
    from mpc.plan import Plan
    from parties.data.columns import Table
    from parties.governance.studies import Study
    from parties.identity import Identity
    from parties.mesh import Member, Mesh
    from parties.node.ledger import Ledger
    from parties.node.matching import Keeper
    from parties.node.material_messages import Prepare
    from parties.node.program import RunProgram
    from parties.node.telling import Teller

# Before the time is over for us, so that we can still say for whom we waited.
_LAST_WORD_SECONDS = 2.0
_CLOSE_SECONDS = 10.0
# Rows that are made up for the dry run: enough for the rules of any disclosure control.
_DRY_ROWS = 200
_DRY_ROWS_A_COLUMN = 20
_MOST_DRY_ROWS = 5000
_DRY_RUN = "dry run"
_PENDING_SOCKETS = 64
_SALT_BYTES = 32


class NotAssignedError(SottovoceError, ValueError):
    """The study is not the one that was approved, or not for us."""


class TimeLimitError(SottovoceError, TimeoutError):
    """The attempt took longer than it may."""


class UnconfinedError(SottovoceError, RuntimeError):
    """A program cannot be kept from the node here."""


class Attempt:
    """What a worker does.

    Parameters
    ----------
    assigned : Assigned
        What the node says.
    identity : Identity
        Made for this attempt.
    in_force : sequence of str
        What confines this process.

    Attributes
    ----------
    stopping : str or None
        Why the node is about to stop us.
    pinned : asyncio.Event
        Set when the node has taken note of our rows: not before that is anything computed on them.
    keeper : Keeper
        Of material that was made ahead of time.

    Raises
    ------
    SottovoceError
        If the study cannot be computed here.
    """

    def __init__(self, assigned: Assigned, identity: Identity, in_force: list[str]) -> None:
        self.stopping: str | None = None
        self.pinned = asyncio.Event()
        self.keeper: Keeper = NoKeeper()
        self._assignment = assigned.assignment
        self._identity = identity
        self._study = self._understand(in_force)
        self._name = self._study.members[self._assignment.rank]
        self._mesh: Mesh | None = None
        self._pending: deque[socket.socket] = deque()
        self._rows: socket.socket | None = None
        self._program: RunProgram | None = None
        self._session = b""

    def _understand(self, in_force: list[str]) -> Study:
        from parties.governance.studies import check_program, study_of
        from parties.node.enter import NEEDED

        assignment = self._assignment
        study = study_of(assignment.study)
        if study.hash != assignment.study_hash:
            raise NotAssignedError(
                f"the study has the hash {study.hash[:12]}, and {assignment.study_hash[:12]} was approved"
            )
        if not assignment.rank < len(study.members):
            raise NotAssignedError(f"rank {assignment.rank} has no part in the study")
        if (assignment.program is not None) != (study.program is not None):
            raise NotAssignedError("the study's program is missing, or there is one that it does not name")
        if assignment.program is not None:
            check_program(study, assignment.program.encode())
            missing = sorted(NEEDED - set(in_force))
            deals = study.members[assignment.rank] == study.dealer
            if missing and not assignment.allow_unconfined and not deals:
                raise UnconfinedError(
                    f"this machine cannot confine a program of somebody else ({', '.join(missing)}): it takes Linux "
                    "5.13 or later with Landlock, on x86-64 or ARM64"
                )
        return study

    @property
    def names(self) -> tuple[str, ...]:
        """The members, in rank order."""
        return self._study.members

    def get_ready(self) -> None:
        """Load what will be needed, while the others get ready too."""
        import parties.data.synthetic
        import parties.mesh
        import parties.node.rows  # noqa: F401 - loaded, not used

    # ---- what the node hands over ---------------------------------------------------------------

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection that the node accepted for us; kept until we know who may connect."""
        if self._mesh is not None:
            self._mesh.adopt(sock)
        elif len(self._pending) < _PENDING_SOCKETS:
            self._pending.append(sock)
        else:
            sock.close()

    def take_rows_from(self, sock: socket.socket | None) -> None:
        """Take the socket to the process that loads our rows."""
        self._rows = sock

    def close(self) -> None:
        """Close what was handed over and not used."""
        while self._pending:
            self._pending.popleft().close()
        if self._rows is not None:
            self._rows.close()

    # ---- the attempt ----------------------------------------------------------------------------

    async def run(self, begin: Begin, ledger: Ledger, teller: Teller) -> dict[str, Any] | None:
        """Compute.

        Returns
        -------
        dict or None
            What we learn of the result.

        Raises
        ------
        SottovoceError
            In all cases that were foreseen; the other members have been told.

        Notes
        -----
        :meth:`leave` comes after it, whether it went well or not.
        """
        limit = self._assignment.limits.time_seconds
        mesh = self._make_mesh(begin)
        teller.mesh = self._mesh = mesh
        while self._pending:
            mesh.adopt(self._pending.popleft())
        clock = asyncio.timeout(limit)
        try:
            try:
                async with clock:
                    return await self._compute(mesh, ledger, teller)
            except TimeoutError:
                if not clock.expired():
                    raise
                raise TimeLimitError(f"{self._name} had not finished within {limit:g} s, the limit of time") from None
        except BaseException as error:
            await self._tell_peers(mesh, error)
            raise

    async def _tell_peers(self, mesh: Mesh, error: BaseException) -> None:
        from parties.reports import cause_of

        cause = cause_of(error)
        if isinstance(cause, asyncio.CancelledError) and self.stopping is not None:
            cause = StoppedError(self.stopping)
        await mesh.stop(cause)

    async def leave(self) -> None:
        """Say goodbye, if we have not said why we stop; wait for the others to have heard all that we sent."""
        if self._mesh is not None:
            await self._mesh.close()

    def _make_mesh(self, begin: Begin) -> Mesh:
        from parties.mesh import Mesh, Patience

        study, assignment = self._study, self._assignment
        self._session = begin.session
        if tuple(member.name for member in begin.members) != study.members:
            raise NotAssignedError("the members that are ready are not those of the study")
        if begin.members[assignment.rank].certificate != self._identity.certificate:
            raise NotAssignedError("another worker's certificate was announced for us")
        limit = assignment.limits.time_seconds
        patience = Patience(
            connect_seconds=min(assignment.connect_seconds, limit),
            # Loading may take one of us long, and so may a step of the computation: what bounds the wait is
            # the time for all of it.
            receive_seconds=limit,
            until=asyncio.get_running_loop().time() + limit - min(_LAST_WORD_SECONDS, limit / 10),
            resume_seconds=float(study.resume_seconds),
            close_seconds=_CLOSE_SECONDS,
        )
        return Mesh(
            self._identity,
            assignment.rank,
            [self._member(member) for member in begin.members],
            parties=len(study.parties),
            session=begin.session,
            patience=patience,
            passes=begin.passes,
        )

    def _member(self, member: MemberAddress) -> Member:
        from parties.mesh import Member

        relay = None
        if member.relay is not None:
            from parties.relay.client import RelayAddress

            relaying = self._assignment.relaying
            relay = RelayAddress(member.relay, ca_file=relaying.ca_file, proxy=relaying.proxy)
        return Member(member.certificate, member.host, member.port, name=member.name, relay=relay)

    async def _compute(self, mesh: Mesh, ledger: Ledger, teller: Teller) -> dict[str, Any] | None:
        study = self._study
        teller.enter("connecting")
        await mesh.connect()
        await self._agree(mesh)
        if mesh.rank == len(study.parties):
            teller.enter("serving")
            await serve_dealer(mesh, security=study.security, make_source=ledger.make_source)
            return None
        teller.enter("joining")
        party = await join(
            mesh, preprocessing=study.preprocessing, security=study.security, make_source=ledger.make_source
        )
        ledger.close()  # all seeds are noted: what runs from here on has no way to touch it
        teller.costs = party.costs
        result = None
        if self._assignment.prepare is not None:
            await self._prepare(party, mesh, self._assignment.prepare, teller)
        elif study.dry_run or self._assignment.dry_only:
            teller.enter("dry run")
            result = await self._run_once(party.at(_DRY_RUN), self._made_up() if self._contributes else None, teller)
            # Nobody touches real data before all have seen that it works.
            await self._wait_for_all(mesh)
        if not self._assignment.dry_only:
            table = await self._load(teller)
            teller.enter("computing")
            if study.preprocessing in KEPT and study.security == "semi-honest":
                await use(party, self.keeper, teller.note)
            result = await self._run_once(party, table, teller)
        salt = await self._salt(mesh)
        await party.leave()
        return None if result is None else {**result, "salt": salt.hex()}

    async def _prepare(self, party: Party, mesh: Mesh, asked: Prepare, teller: Teller) -> None:
        """Make material for later attempts, as much as the study takes on made-up rows."""
        from mpc.plan import plan_of

        study = self._study
        if study.preprocessing not in KEPT:
            raise NotAssignedError(f"material of {study.preprocessing!r} ends with its session: it cannot be prepared")
        if study.security != "semi-honest":
            raise NotAssignedError("material with MACs ends with its session: it cannot be prepared")
        teller.enter("preparing")
        given = [self._made_up(asked.rows) if name in study.contributors else None for name in study.parties]

        async def find() -> Plan:
            return await asyncio.to_thread(plan_of, lambda seat, table: self._compute_on(seat, table, _nobody), given)

        plan = await share_plan(mesh, find)
        await produce(
            party, self.keeper, plan, study=study.hash, session=self._session, runs=asked.runs, tell=teller.note
        )

    async def _salt(self, mesh: Mesh) -> bytes:
        """Return random bytes that the recipients share and nobody else has.

        All members get the hash of the result, and results are easily guessed: a count has few digits. A
        program may give each recipient something else, so there each has a salt of its own.
        """
        study = self._study
        ranks = [rank for rank, name in enumerate(study.parties) if name in study.recipients]
        ours = secrets.token_bytes(_SALT_BYTES)
        if study.program is not None or mesh.rank not in ranks:
            return ours
        if mesh.rank != ranks[0]:
            return bytes(await mesh.receive(ranks[0], "salt", _SALT_BYTES))
        for rank in ranks[1:]:
            await mesh.send(rank, "salt", ours)
        return ours

    async def _agree(self, mesh: Mesh) -> None:
        """See that all compute the same: the study, the attempt, and whether it ends with the dry run."""
        assignment = self._assignment
        asked = assignment.prepare
        prepares = [] if asked is None else [asked.runs, asked.rows]
        terms = json.dumps([self._study.hash, assignment.attempt, assignment.dry_only, *prepares])
        ours = hashlib.sha256(terms.encode()).digest()
        peers = [rank for rank in range(len(self._study.members)) if rank != mesh.rank]
        for peer in peers:
            await mesh.send(peer, "study", ours)
        for peer in peers:
            if bytes(await mesh.receive(peer, "study", len(ours))) != ours:
                raise AgreementError(
                    f"{self._study.members[peer]} computes another study or attempt than "
                    f"{self._name}: all must start the same one"
                )

    async def _wait_for_all(self, mesh: Mesh) -> None:
        peers = [rank for rank in range(mesh.size) if rank != mesh.rank]
        for peer in peers:
            await mesh.send(peer, "dry run is done", b"y")
        for peer in peers:
            await mesh.receive(peer, "dry run is done", 1)

    # ---- data -----------------------------------------------------------------------------------

    @property
    def _contributes(self) -> bool:
        return self._name in self._study.contributors

    def _made_up(self, rows: int | None = None) -> Table:
        """Return rows that look like the schema and are nobody's."""
        from parties.data.synthetic import synthetic

        if rows is None:
            rows = max(_DRY_ROWS, min(_DRY_ROWS_A_COLUMN * len(self._study.columns), _MOST_DRY_ROWS))
        return synthetic(self._study.columns, rows)

    async def _load(self, teller: Teller) -> Table | None:
        from parties.node.rows import LoadError, take_table

        if not self._contributes:
            return None
        teller.enter("loading")
        rows, self._rows = self._rows, None
        if rows is None:
            raise LoadError(
                f"{self._name} contributes rows to this study and has configured no source for it: add one to node.toml"
            )
        table, digest = await take_table(rows, limit=self._assignment.limits.memory_mb * 1024 * 1024 // 2)
        await teller.rows(table.rows, table.dropped, digest)
        # Or the node could go down between something being opened and its knowing on which rows.
        await self.pinned.wait()
        return table

    async def _run_once(self, party: Party, table: Table | None, teller: Teller) -> dict[str, Any] | None:
        result = await self._compute_on(party, table, teller.note)
        return result if self._study.program is None or self._name in self._study.recipients else None

    async def _compute_on(
        self, party: Party, table: Table | None, note: Callable[[str], None]
    ) -> dict[str, Any] | None:
        if self._study.program is None:
            from parties.governance.catalogue import run_analyses

            return await run_analyses(party, self._study, table, note)
        from parties.node.program import load_program, run_program

        name = self._study.program.file
        if self._program is None:
            self._program = load_program(self._assignment.program or "", name)
        return await run_program(self._program, name, party, table)


def _nobody(text: str) -> None:
    """Tell nobody how far a trial on made-up rows is."""


class StoppedError(SottovoceError, RuntimeError):
    """The node stopped its worker; the text is its reason."""
