"""How records spread: who meets says what it has, asks for what it lacks, and passes on what is new.

A record goes only to the members of its study. Who misses something (a link that was down, a node that was
off) gets it when the link is up again, so that all members end up with the same records; in the order in
which the sender took them, so that a cause never comes after its effect from the same peer.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from parties.governance import records as signed
from parties.governance.checks import one_line
from parties.governance.errors import GovernanceError
from parties.governance.records import Record
from parties.node.hello import ProtocolError
from parties.node.library import Entry, Library, RefusedError, UnknownStudyError
from parties.node.store import StoreError

_IDS_AT_ONCE = 1000
_ID = re.compile(r"[0-9a-f]{64}")
# Records that we refused are not asked for again until the next start; of so many.
_MOST_REMEMBERED = 10_000


class Gossip:
    """Exchanges records with peers.

    Parameters
    ----------
    library : Library
    name : str
        Ours.
    clock : callable
        Returns now, in UTC.
    push : callable
        ``push(peer, message)`` sends without waiting, if there is a link.
    on_taken : callable
        ``on_taken(entry, record, sender)`` is told of each new record.
    on_refused : callable
        ``on_refused(sender, why, attack)`` is told of each record that was not taken.
    """

    def __init__(
        self,
        library: Library,
        name: str,
        *,
        clock: Callable[[], datetime.datetime],
        push: Callable[[str, dict[str, Any]], None],
        on_taken: Callable[[Entry, Record, str], None],
        on_refused: Callable[[str, str, bool], None],
    ) -> None:
        self._library = library
        self._name = name
        self._clock = clock
        self._push = push
        self._on_taken, self._on_refused = on_taken, on_refused
        self._refused: dict[str, None] = {}
        self._early: dict[str, None] = {}

    def meet(self, peer: str) -> None:
        """Begin with a peer whose link has come up: say what we have."""
        ids = self._library.shared_with(peer)
        for start in range(0, max(len(ids), 1), _IDS_AT_ONCE):
            self._push(peer, {"kind": "have", "ids": ids[start : start + _IDS_AT_ONCE]})

    def announce(self, entry: Entry, record: Record, *, but: str = "") -> None:
        """Tell the study's other members of a record that we have taken."""
        message = {"kind": "record", "record": record.plain()}
        for member in entry.members:
            if member not in (self._name, but, record.author):
                self._push(member, message)

    def hear(self, peer: str, message: dict[str, Any]) -> bool:
        """Deal with a message of a peer; False if it is not for us.

        Raises
        ------
        ProtocolError
            If it is not what its kind says.
        """
        kind = message["kind"]
        if kind == "have":
            missing = [one for one in _ids(message) if one not in self._library and one not in self._refused]
            if missing:
                self._push(peer, {"kind": "want", "ids": missing})
        elif kind == "want":
            for one in _ids(message):
                record = self._library.record_for(peer, one)
                if record is not None:
                    self._push(peer, {"kind": "record", "record": record.plain()})
        elif kind == "record":
            self._take(peer, message.get("record"))
        elif kind == "refused":
            self._note(peer, message)
        else:
            return False
        return True

    def _take(self, peer: str, plain: object) -> None:
        if not isinstance(plain, dict):
            raise ProtocolError("a record that is none")
        try:
            record = signed.parse(plain)
        except GovernanceError as error:
            raise ProtocolError(f"a record that is not valid: {error}") from None
        record_id = record.id
        if record_id in self._refused:
            return
        try:
            entry = self._library.take(record, self._clock(), sender=peer)
        except RefusedError as error:
            if isinstance(error, UnknownStudyError) and record_id not in self._early:
                # It overtook what we have asked for: asked for now, it comes after that.
                _remember(self._early, record_id)
                self._push(peer, {"kind": "want", "ids": [record_id]})
                return
            if error.attack:
                _remember(self._refused, record_id)
            self._on_refused(peer, str(error), error.attack)
            self._push(peer, {"kind": "refused", "id": record_id, "why": str(error)})
            return
        except StoreError as error:
            # It stays unknown here, and is asked for when the link comes up again.
            self._on_refused(peer, str(error), False)
            self._push(peer, {"kind": "refused", "id": record_id, "why": f"{self._name} cannot write to its disk"})
            return
        if entry is not None:
            self._early.pop(record_id, None)
            self.announce(entry, record, but=peer)
            self._on_taken(entry, record, peer)

    def _note(self, peer: str, message: dict[str, Any]) -> None:
        """Keep what a peer has against a record of ours, for our owner to see."""
        ids = _ids({"ids": [message.get("id")]})
        why = message.get("why")
        record = self._library.record_for(peer, ids[0])
        if record is not None and record.author == self._name and isinstance(why, str):
            entry = self._library.entries[record.study]
            entry.troubles[peer] = f"{peer} refuses our {record.kind}: {one_line(why)}"
            entry.wake()


def _remember(ids: dict[str, None], one: str) -> None:
    ids[one] = None
    if len(ids) > _MOST_REMEMBERED:
        del ids[next(iter(ids))]


def _ids(message: dict[str, Any]) -> list[str]:
    ids = message.get("ids")
    if not isinstance(ids, list) or len(ids) > _IDS_AT_ONCE:
        raise ProtocolError("a list of records that is none, or too long")
    if not all(isinstance(one, str) and _ID.fullmatch(one) for one in ids):
        raise ProtocolError("a list of records that is none, or too long")
    return ids
