"""Results: kept once, and handed to a recipient whose node went down before it had its own.

All recipients report the digest of what they got. Whoever lacks the result asks the others for it, piece by
piece, and takes only what has that digest.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from typing import Any

from parties.governance.canonical import canonical, parse
from parties.governance.checks import write_time
from parties.governance.errors import GovernanceError
from parties.node.hello import ProtocolError
from parties.node.library import Library
from parties.node.messages import result_digest
from parties.node.store import Store, StoreError

PART_BYTES = 256 * 1024
MOST_BYTES = 48 << 20
_PART_SECONDS = 20.0

log = logging.getLogger(__name__)


class Results:
    """Results on disk, and their way between recipients.

    Parameters
    ----------
    store : Store
    library : Library
    push : callable
        ``push(peer, message)`` sends without waiting, if there is a link.
    clock : callable
        Returns now, in UTC.
    """

    def __init__(
        self,
        store: Store,
        library: Library,
        *,
        push: Callable[[str, dict[str, Any]], None],
        clock: Callable[[], datetime.datetime],
    ) -> None:
        self._store = store
        self._library = library
        self._push = push
        self._clock = clock
        self._attempts: dict[str, int] = {}
        self._parts: dict[tuple[str, str], asyncio.Queue[dict[str, Any]]] = {}

    # ---- on disk --------------------------------------------------------------------------------

    def keep(self, study: str, attempt: int, result: dict[str, Any], source: str | None = None) -> str:
        """Write a result, once, and return its digest.

        Parameters
        ----------
        study : str
            Hash of the study.
        attempt : int
        result : dict
        source : str, optional
            The member from whom we have it, if we did not compute it ourselves.

        Raises
        ------
        StoreError
            If it cannot be written, or another result is there.
        """
        digest = result_digest(result)
        content = canonical(
            {
                "format": 1,
                "study": study,
                "attempt": attempt,
                "digest": digest,
                "from": source,
                "time": write_time(self._clock()),
                "result": result,
            }
        )
        if not self._store.save_result(study, content):
            kept = self.kept(study)
            if kept is None or kept["digest"] != digest:
                raise StoreError(f"study {study[:12]} has a result already, and this is another one: it was not kept")
        return digest

    def kept(self, study: str) -> dict[str, Any] | None:
        """Return what was written: ``attempt, digest, from, time, result``; None if there is nothing.

        Raises
        ------
        StoreError
            If it was altered.
        """
        content = self._store.result(study)
        if content is None:
            return None
        try:
            kept = parse(content, limit=1 << 27)
            if isinstance(kept, dict) and kept["study"] == study and result_digest(kept["result"]) == kept["digest"]:
                return kept
        except (GovernanceError, KeyError):
            pass
        raise StoreError(f"the result of study {study[:12]} on disk was altered: it does not have its digest any more")

    def attempt_of(self, study: str) -> int | None:
        """Return the attempt whose result is here; 0 if it is damaged, since it is never replaced."""
        if study not in self._attempts:
            try:
                kept = self.kept(study)
            except StoreError as error:
                log.error("%s", error)
                self._attempts[study] = 0
            else:
                if kept is None:
                    return None
                self._attempts[study] = int(kept["attempt"])
        return self._attempts[study]

    # ---- between recipients ---------------------------------------------------------------------

    def hear(self, peer: str, message: dict[str, Any]) -> bool:
        """Deal with a message of a peer; False if it is not for us.

        Raises
        ------
        ProtocolError
            If it is not what its kind says.
        """
        if message["kind"] == "result request":
            self._serve(peer, message)
        elif message["kind"] == "result":
            waiting = self._parts.get((peer, str(message.get("study"))))
            if waiting is not None and waiting.empty():  # one is asked for at a time
                waiting.put_nowait(message)
        else:
            return False
        return True

    def _serve(self, peer: str, message: dict[str, Any]) -> None:
        study, offset = message.get("study"), message.get("offset")
        if not isinstance(study, str) or not isinstance(offset, int) or offset < 0:
            raise ProtocolError("a request for a result that is not valid")
        entry = self._library.entries.get(study)
        kept = None
        # A program may have opened to each recipient something else: that is not for the others.
        if entry is not None and peer in entry.study.recipients and entry.study.program is None:
            kept = self.kept(study)
        reply: dict[str, Any] = {"kind": "result", "study": study, "offset": offset, "total": 0, "part": ""}
        if kept is not None:
            content = canonical(kept["result"]).decode("ascii")
            reply |= {"total": len(content), "part": content[offset : offset + PART_BYTES]}
        self._push(peer, reply)

    async def fetch(self, study: str, attempt: int, digest: str, peer: str) -> bool:
        """Get a result from a peer and keep it; False if the peer does not have it, or has another one.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        key = (peer, study)
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
        self._parts[key] = waiting
        parts: list[str] = []
        size = 0
        try:
            while True:
                self._push(peer, {"kind": "result request", "study": study, "offset": size})
                async with asyncio.timeout(_PART_SECONDS):
                    message = await waiting.get()
                part, total = message.get("part"), message.get("total")
                if not isinstance(part, str) or not isinstance(total, int) or message.get("offset") != size:
                    return False
                size += len(part)
                parts.append(part)
                if not part or size > total or total > MOST_BYTES:
                    return False
                if size == total:
                    break
        except TimeoutError:
            return False
        finally:
            del self._parts[key]
        try:
            result = parse("".join(parts).encode(), limit=MOST_BYTES)
        except GovernanceError:
            return False
        if not isinstance(result, dict) or result_digest(result) != digest:
            return False
        self.keep(study, attempt, result, source=peer)
        return True
