"""The studies that a node knows, and which records it takes.

A record counts once it is on disk. What is refused is refused with a reason that may be told to whoever
sent it.
"""

from __future__ import annotations

import asyncio
import datetime

from mpc.errors import SottovoceError
from parties.governance import records as signed
from parties.governance.checks import short
from parties.governance.consortium import Consortium
from parties.governance.errors import GovernanceError
from parties.governance.records import Record
from parties.governance.studies import Study, check_program, differences, study_of
from parties.node.hello import SKEW_SECONDS
from parties.node.states import ENDED, MOST_ATTEMPTS, OF_ATTEMPTS, StudyState, moment, state_of
from parties.node.store import Store, StoreError

# Studies that are not over and that one member may have proposed at a time, and all that are kept.
MOST_OPEN = 100
MOST_OF_ONE = 1000
MOST_STUDIES = 10_000
_SHORTEST_PREFIX = 4


class RefusedError(SottovoceError, ValueError):
    """A record is not taken; the text says why, and may be told to who sent it.

    Attributes
    ----------
    attack : bool
        Whether it is more than a misunderstanding: a signature that does not fit, two statements of one
        member that contradict each other.
    """

    def __init__(self, message: str, *, attack: bool = False) -> None:
        super().__init__(message)
        self.attack = attack


class UnknownStudyError(RefusedError):
    """A record about a study whose proposal is not here; it may still be on its way."""


class NoStudyError(SottovoceError, LookupError):
    """No study, or more than one, is meant by what was given."""


class Entry:
    """One study with its records.

    Attributes
    ----------
    study : Study
    program : str or None
        Text of its program.
    records : list of Record
        In the order in which they came.
    troubles : dict
        What peers have against records of ours, by peer.
    changed : asyncio.Event
        Set at the next change; take it before looking at the state, then wait for it.
    """

    def __init__(self, study: Study, program: str | None) -> None:
        self.study = study
        self.program = program
        self.records: list[Record] = []
        self.troubles: dict[str, str] = {}
        self._state: tuple[tuple[int, bool], StudyState] | None = None
        self._by_slot: dict[tuple[str, str, int], Record] = {}
        self.changed = asyncio.Event()

    def state(self, now: datetime.datetime) -> StudyState:
        """Say where the study stands."""
        key = (len(self.records), self.study.deadline_passed(now))
        if self._state is None or self._state[0] != key:
            self._state = (key, state_of(self.study, self.records, now))
        return self._state[1]

    def proposer(self) -> str:
        """Return who proposed it first, as far as we know."""
        return next((record.author for record in self.records if record.kind == "proposal"), "")

    def own(self, name: str, kind: str, attempt: int = 0) -> Record | None:
        """Return what a member said, if it did."""
        return self._by_slot.get((name, kind, attempt))

    def slot(self, record: Record) -> tuple[str, str, int]:
        """Return what a member may say once: author, kind and attempt."""
        number = int(record.body["attempt"]) if record.kind in OF_ATTEMPTS else 0
        return record.author, record.kind, number

    def add(self, record: Record) -> None:
        """Take a record that is on disk, and wake who waits."""
        self.records.append(record)
        self._by_slot.setdefault(self.slot(record), record)
        self.wake()

    def wake(self) -> None:
        """Let those look again who wait for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Library:
    """All studies of one node.

    Parameters
    ----------
    store : Store
    consortium : Consortium
    name : str
        Ours.
    """

    def __init__(self, store: Store, consortium: Consortium, name: str) -> None:
        self._store = store
        self.consortium = consortium
        self._name = name
        self.entries: dict[str, Entry] = {}
        self._ids: dict[str, Record] = {}
        self.damaged: list[str] = []
        for study_hash in store.hashes():
            self._load(study_hash)

    def _load(self, study_hash: str) -> None:
        """Read a study back; one that is damaged is left alone and told of, the others go on."""
        try:
            stored = self._store.load(study_hash)
            if stored is None:
                return
            study = study_of(stored.study)
            if study.hash != study_hash:
                raise StoreError(f"study {study_hash[:12]} on disk has the hash {study.hash[:12]}")
            entry = Entry(study, check_program(study, stored.program))
            for plain in stored.records:
                record = signed.parse(plain)
                # Not the members' keys again: a record that was valid when it came stays what was said then.
                if record.study == study_hash and (record_id := record.id) not in self._ids:
                    entry.add(record)
                    self._ids[record_id] = record
        except GovernanceError as error:
            self.damaged.append(f"study {study_hash[:12]}: {error}")
            return
        if entry.records:
            self.entries[study_hash] = entry

    # ---- looking up -----------------------------------------------------------------------------

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._ids

    def find(self, text: str) -> Entry:
        """Return the study that somebody means by a hash, the begin of one, or a title.

        Raises
        ------
        NoStudyError
            If none or several fit; two of one title are told apart by what differs.
        """
        if text in self.entries:
            return self.entries[text]
        prefix = text.lower() if len(text) >= _SHORTEST_PREFIX else "-"
        found = [
            entry
            for study_hash, entry in self.entries.items()
            if entry.study.title == text or study_hash.startswith(prefix)
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NoStudyError(f"no study is called {short(text)} here: sottovoce list shows those that are known")
        hashes = ", ".join(sorted(entry.study.hash[:12] for entry in found))
        differ = "; ".join(differences(found[0].study, found[1].study)[:5])
        raise NoStudyError(f"{len(found)} studies fit {short(text)}: name one of {hashes} (they differ: {differ})")

    def namesakes(self, study: Study) -> list[Entry]:
        """Return other studies of the same title."""
        return [
            entry
            for entry in self.entries.values()
            if entry.study.title == study.title and entry.study.hash != study.hash
        ]

    def shared_with(self, peer: str) -> list[str]:
        """Return the identifiers of all records about studies in which a peer takes part, oldest first."""
        return [
            record_id
            for record_id, record in self._ids.items()
            if record.study in self.entries and peer in self.entries[record.study].study.members
        ]

    def record_for(self, peer: str, record_id: str) -> Record | None:
        """Return a record, unless it is none of the peer's business."""
        record = self._ids.get(record_id)
        entry = None if record is None else self.entries.get(record.study)
        return record if entry is not None and peer in entry.study.members else None

    # ---- taking ---------------------------------------------------------------------------------

    def take(self, record: Record, now: datetime.datetime, *, sender: str | None = None) -> Entry | None:
        """Check a record and keep it.

        Parameters
        ----------
        record : Record
            Parsed, no more.
        now : datetime.datetime
        sender : str, optional
            The peer that sent it, who must take part in the study; None for records of our own.

        Returns
        -------
        Entry or None
            Its study; None if the record was here already.

        Raises
        ------
        RefusedError
            If it is not taken.
        StoreError
            If it cannot be written; then it was not taken either.
        """
        record_id = record.id
        if record_id in self._ids:
            return None
        try:
            signed.check(record, self.consortium)
        except GovernanceError as error:
            raise RefusedError(str(error), attack=True) from None
        ahead = (moment(record) - now).total_seconds()
        who = f"{record.kind} of {record.author}"
        if ahead > SKEW_SECONDS:
            raise RefusedError(
                f"{who} is dated {ahead:.0f} s in the future by our clock: set the clocks of both nodes by NTP"
            )
        entry = self.entries.get(record.study)
        if entry is None:
            if record.kind != "proposal":
                raise UnknownStudyError(f"{who} is about a study, {record.study[:12]}, whose proposal is not here")
            entry = self._propose(record, now)
        elif sender is not None and sender not in entry.study.members:
            raise RefusedError(f"{sender} takes no part in study {record.study[:12]}", attack=True)
        if record.author not in entry.study.members:
            raise RefusedError(f"{who}: {record.author} takes no part in study {record.study[:12]}", attack=True)
        author, kind, number = slot = entry.slot(record)
        if number > MOST_ATTEMPTS:
            raise RefusedError(f"{who}: a study has at most {MOST_ATTEMPTS} attempts", attack=True)
        if (before := entry.own(*slot)) is not None and not (kind == "proposal" and before.body == record.body):
            of = f" for attempt {number}" if number else ""
            same = before.body == record.body
            raise RefusedError(
                f"{author} said {kind} twice{of}" + ("" if same else ", in different ways: the first one counts"),
                attack=not same,
            )
        if before is not None:
            return None
        self._store.append(record.study, record.plain())
        self._ids[record_id] = record
        self.entries[record.study] = entry
        entry.add(record)
        return entry

    def _propose(self, record: Record, now: datetime.datetime) -> Entry:
        try:
            study, program = signed.proposed(record)
            study.check_members(self.consortium)
        except GovernanceError as error:
            raise RefusedError(str(error), attack=True) from None
        if self._name not in study.members:
            raise RefusedError(f"study {study.hash[:12]} does not name {self._name}, who cannot take part", attack=True)
        if record.author not in study.members:
            raise RefusedError(f"{record.author} takes no part in the study that it proposes", attack=True)
        if self._store.is_forgotten(study.hash):
            # Its approvals may still be with others: taken back, they would let it run without new consent.
            raise RefusedError(
                f"study {study.hash[:12]} was removed from the records of {self._name} and does not come back: propose "
                "it anew, with another title"
            )
        if study.deadline_passed(now):
            raise RefusedError(f"the deadline of study {study.hash[:12]} has passed: propose it anew with a later one")
        theirs = [entry for entry in self.entries.values() if entry.proposer() == record.author]
        still_open = sum(1 for entry in theirs if entry.state(now).phase not in ENDED)
        if still_open >= MOST_OPEN:
            raise RefusedError(f"{record.author} has {still_open} studies open here: cancel some first")
        if len(theirs) >= MOST_OF_ONE:
            raise RefusedError(
                f"{self._name} keeps {len(theirs)} studies that {record.author} proposed, and takes no more: its owner "
                "must remove some that are over"
            )
        if len(self.entries) >= MOST_STUDIES:
            raise RefusedError(f"{self._name} keeps {MOST_STUDIES} studies and takes no more")
        self._store.add(study.hash, study.plain(), program)
        return Entry(study, program)
