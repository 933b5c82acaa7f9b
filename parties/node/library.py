"""The studies that a node knows, and which records it takes.

A record counts once it is on disk. What is refused is refused with a reason that may be told to whoever
sent it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import OrderedDict
from collections.abc import Callable

from mpc.errors import SottovoceError
from parties.governance import records as signed
from parties.governance.checks import short
from parties.governance.consortium import Consortium
from parties.governance.errors import GovernanceError
from parties.governance.records import Record
from parties.governance.studies import Study, check_program, differences, study_of
from parties.node.hello import SKEW_SECONDS
from parties.node.states import ENDED, MOST_ATTEMPTS, OF_ATTEMPTS, Phase, StudyState, moment, state_of
from parties.node.store import Store, StoreError

# Studies that are not over and that one member may have proposed at a time, and all that are kept.
MOST_OPEN = 100
MOST_OF_ONE = 1000
MOST_STUDIES = 10_000
# Studies that are over and still in memory; a study with its records takes some 30 KB.
SETTLED_IN_MEMORY = 32
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


class _Content:
    """What a study says and what its members said of it: most of the memory that a study takes."""

    def __init__(self, study: Study, program: str | None) -> None:
        self.study = study
        self.program = program
        self.records: list[Record] = []
        self.by_id: dict[str, Record] = {}
        self.by_slot: dict[tuple[str, str, int], Record] = {}

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.by_id[record.id] = record
        self.by_slot.setdefault(slot(record), record)


class Entry:
    """One study with its records.

    Attributes
    ----------
    hash, title : str
    members : tuple of str
    troubles : dict
        What peers have against records of ours, by peer.
    changed : asyncio.Event
        Set at the next change; take it before looking at the state, then wait for it.
    """

    def __init__(self, study: Study, program: str | None, read_back: Callable[[Entry], _Content] | None = None) -> None:
        self.hash = study.hash
        self.title = study.title
        self.members = tuple(study.members)
        self.troubles: dict[str, str] = {}
        self.changed = asyncio.Event()
        self._content: _Content | None = _Content(study, program)
        self._read_back = read_back
        self._state: tuple[tuple[int, bool], StudyState] | None = None
        self._phase = Phase.PROPOSED
        self._begun = self._proposer = ""

    @property
    def _kept(self) -> _Content:
        """Return the content, from the disk if it was put away."""
        if self._content is None:
            if self._read_back is None:
                raise StoreError(f"study {self.hash[:12]} was put away, and nobody knows where")
            self._content = self._read_back(self)
        return self._content

    @property
    def study(self) -> Study:
        """What was proposed."""
        return self._kept.study

    @property
    def program(self) -> str | None:
        """Text of its program."""
        return self._kept.program

    @property
    def records(self) -> list[Record]:
        """All records, in the order in which they came."""
        return self._kept.records

    @property
    def begun(self) -> str:
        """When its first record was signed; empty as long as there is none."""
        return self._begun

    @property
    def proposer(self) -> str:
        """Who proposed it first, as far as we know."""
        return self._proposer

    def phase(self, now: datetime.datetime) -> Phase:
        """Say where the study stands, in a word: one that is over is not read back for that."""
        return self._phase if self._content is None else self.state(now).phase

    def state(self, now: datetime.datetime) -> StudyState:
        """Say where the study stands."""
        key = (len(self.records), self.study.deadline_passed(now))
        if self._state is None or self._state[0] != key:
            self._state = (key, state_of(self.study, self.records, now))
            self._phase = self._state[1].phase
        return self._state[1]

    def own(self, name: str, kind: str, attempt: int = 0) -> Record | None:
        """Return what a member said, if it did."""
        return self._kept.by_slot.get((name, kind, attempt))

    def record(self, record_id: str) -> Record | None:
        """Return a record by its identifier."""
        return self._kept.by_id.get(record_id)

    def add(self, record: Record) -> None:
        """Take a record that is on disk, and wake who waits."""
        self._kept.add(record)
        self._begun = self._begun or record.time
        if record.kind == "proposal":
            self._proposer = self._proposer or record.author
        self.wake()

    def wake(self) -> None:
        """Let those look again who wait for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def put_away(self) -> None:
        """Forget what can be read back from the disk."""
        self._content = self._state = None


def slot(record: Record) -> tuple[str, str, int]:
    """Return what a member may say once: author, kind and attempt."""
    number = int(record.body["attempt"]) if record.kind in OF_ATTEMPTS else 0
    return record.author, record.kind, number


class Library:
    """All studies of one node.

    Parameters
    ----------
    store : Store
    consortium : Consortium
    name : str
        Ours.

    Attributes
    ----------
    damaged : list of str
        What is damaged on the disk, for people.
    left_out : frozenset of str
        Hashes of the studies that had a directory at the start and could not be read from it.
    """

    def __init__(self, store: Store, consortium: Consortium, name: str) -> None:
        self._store = store
        self.consortium = consortium
        self._name = name
        self.entries: dict[str, Entry] = {}
        self._ids: dict[str, str] = {}
        self._settled: OrderedDict[str, Entry] = OrderedDict()
        self.damaged: list[str] = []
        for study_hash in store.hashes():
            self._load(study_hash)
        self.left_out = frozenset(store.hashes()).difference(self.entries)

    def _load(self, study_hash: str) -> None:
        """Read a study at the start; one that is damaged is left alone and told of, the others go on."""
        try:
            content = self._content_of(study_hash)
        except GovernanceError as error:
            self.damaged.append(f"study {study_hash[:12]}: {error}")
            return
        if content is not None and content.records:
            entry = self._entry(content.study, content.program)
            for record_id, record in content.by_id.items():
                entry.add(record)
                self._ids[record_id] = study_hash
            self.entries[study_hash] = entry

    def _content_of(self, study_hash: str) -> _Content | None:
        stored = self._store.load(study_hash)
        if stored is None:
            return None
        study = study_of(stored.study)
        if study.hash != study_hash:
            raise StoreError(f"study {study_hash[:12]} on disk has the hash {study.hash[:12]}")
        content = _Content(study, check_program(study, stored.program))
        for plain in stored.records:
            record = signed.parse(plain)
            # Not the members' keys again: a record that was valid when it came stays what was said then.
            if record.study == study_hash and record.id not in content.by_id:
                content.add(record)
        return content

    def _entry(self, study: Study, program: str | None) -> Entry:
        return Entry(study, program, self._read_back)

    def _read_back(self, entry: Entry) -> _Content:
        """Read a study that was put away."""
        try:
            content = self._content_of(entry.hash)
            if content is None:
                raise StoreError("its files are gone")
        except GovernanceError as error:
            damage = f"study {entry.hash[:12]}: {error}"
            if damage not in self.damaged:
                self.damaged.append(damage)
            raise StoreError(damage) from None
        self.settle(entry)
        return content

    def settle(self, entry: Entry) -> None:
        """Expect nothing of a study any more: once others have come after it, it is put away.

        So a node does not grow with every study that it ever took part in; what is asked of an old one is read
        from the disk.
        """
        self._settled[entry.hash] = entry
        self._settled.move_to_end(entry.hash)
        while len(self._settled) > SETTLED_IN_MEMORY:
            self._settled.popitem(last=False)[1].put_away()

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
            entry for study_hash, entry in self.entries.items() if entry.title == text or study_hash.startswith(prefix)
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NoStudyError(f"no study is called {short(text)} here: sottovoce list shows those that are known")
        hashes = ", ".join(sorted(entry.hash[:12] for entry in found))
        differ = "; ".join(differences(found[0].study, found[1].study)[:5])
        raise NoStudyError(f"{len(found)} studies fit {short(text)}: name one of {hashes} (they differ: {differ})")

    def namesakes(self, study: Study) -> list[Entry]:
        """Return other studies of the same title."""
        return [entry for entry in self.entries.values() if entry.title == study.title and entry.hash != study.hash]

    def shared_with(self, peer: str) -> list[str]:
        """Return the identifiers of all records about studies in which a peer takes part, oldest first."""
        return [
            record_id
            for record_id, study_hash in self._ids.items()
            if study_hash in self.entries and peer in self.entries[study_hash].members
        ]

    def record_for(self, peer: str, record_id: str) -> Record | None:
        """Return a record, unless it is none of the peer's business.

        Raises
        ------
        StoreError
            If it cannot be read back.
        """
        entry = self.entries.get(self._ids.get(record_id, ""))
        return entry.record(record_id) if entry is not None and peer in entry.members else None

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
        elif sender is not None and sender not in entry.members:
            raise RefusedError(f"{sender} takes no part in study {record.study[:12]}", attack=True)
        if record.author not in entry.members:
            raise RefusedError(f"{who}: {record.author} takes no part in study {record.study[:12]}", attack=True)
        author, kind, number = slot(record)
        if number > MOST_ATTEMPTS:
            raise RefusedError(f"{who}: a study has at most {MOST_ATTEMPTS} attempts", attack=True)
        if (before := entry.own(author, kind, number)) is not None and not (
            kind == "proposal" and before.body == record.body
        ):
            of = f" for attempt {number}" if number else ""
            same = before.body == record.body
            raise RefusedError(
                f"{author} said {kind} twice{of}" + ("" if same else ", in different ways: the first one counts"),
                attack=not same,
            )
        if before is not None:
            return None
        self._store.append(record.study, record.plain())
        self._ids[record_id] = record.study
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
        theirs = [entry for entry in self.entries.values() if entry.proposer == record.author]
        still_open = sum(1 for entry in theirs if entry.phase(now) not in ENDED)
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
        return self._entry(study, program)
