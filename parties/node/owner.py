"""What a node does for its owner: propose, approve, reject, run, cancel, and hand out the result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mpc.errors import SottovoceError
from parties.governance.studies import check_program, differences, study_of
from parties.node.states import ENDED, Phase, Preparation, StudyState
from parties.node.store import StoreError
from parties.node.views import node_view, study_details, study_view

if TYPE_CHECKING:
    from parties.node.library import Entry
    from parties.node.service import Node

# Preprocessings whose material can be kept; as in mpc.stock, which takes its time to load.
KEPT = ("ot",)
MOST_RUNS = 100
MOST_ROWS = 10_000_000
# Progress is told at most so often.
_PROGRESS_SECONDS = 0.2
# And at least so often: who waits for a certain time sees it pass, and links come and go without a change.
_SIGN_SECONDS = 1.0


class NotNowError(SottovoceError, ValueError):
    """What the owner asks for is not possible as things are; says why and what to do."""


class Owner:
    """The owner's wishes, checked and carried out.

    Parameters
    ----------
    node : Node
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    # ---- looking --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return how the node is."""
        return node_view(self._node)

    async def studies(self) -> list[dict[str, Any]]:
        """Return all studies that can be read, the newest first."""
        views = []
        for entry in sorted(self._node.library.entries.values(), key=lambda entry: entry.begun, reverse=True):
            with contextlib.suppress(StoreError):  # the node's status tells which files are damaged
                views.append(study_view(self._node, entry))
            await asyncio.sleep(0)  # old ones are read from the disk: links and workers do not wait for it
        return views

    def show(self, which: str) -> dict[str, Any]:
        """Return everything about one study."""
        return study_details(self._node, self._node.library.find(which))

    def result(self, which: str) -> dict[str, Any]:
        """Return the result of a study, with the attempt that gave it.

        Raises
        ------
        NotNowError
            If there is none here; says why.
        """
        node = self._node
        entry = node.library.find(which)
        kept = node.results.kept(entry.hash)
        if kept is not None:
            return {"title": entry.title, **kept}
        state = self._state(entry)
        if node.config.name not in entry.study.recipients:
            others = ", ".join(entry.study.recipients)
            raise NotNowError(f"{node.config.name} is no recipient of this study: its results go to {others}")
        if state.phase is Phase.FINISHED:
            why = "the recipients report different results"
            if entry.study.program is not None:
                why = "results of a program cannot be had from others; propose the study again"
            elif state.agreed:
                why = "it is being asked for; wait until a recipient that has it is connected"
            raise NotNowError(f"the study is finished, but this node went down before it had the result: {why}")
        raise NotNowError(f"there is no result yet: the study is {state.phase} ({state.text})")

    async def progress(self, which: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the study's view after each change, until nothing happens any more by itself."""
        node = self._node
        entry = node.library.find(which)
        while True:
            changed = entry.changed
            view = study_view(node, entry)
            yield view
            if view["over"]:
                return
            await asyncio.sleep(_PROGRESS_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SIGN_SECONDS):
                    await changed.wait()

    # ---- doing ----------------------------------------------------------------------------------

    def propose(self, plain: Mapping[str, Any], program: str | None) -> dict[str, Any]:
        """Propose a study to its members; returns its view, with ``namesakes`` and what they differ in.

        Raises
        ------
        SottovoceError
            If it cannot be proposed here.
        """
        node = self._node
        study = study_of(dict(plain))
        text = check_program(study, program)
        study.check_members(node.consortium)
        name = node.config.name
        if name not in study.members:
            raise NotNowError(f"{name} takes no part in this study: one of {', '.join(study.members)} may propose it")
        if study.deadline_passed(node.clock()):
            raise NotNowError(f"its deadline, {study.deadline}, has passed: set a later one")
        known = node.library.entries.get(study.hash)
        if known is not None:
            raise NotNowError(
                f"this very study was proposed already, by {known.proposer}: it is {self._state(known).phase} "
                f"(sottovoce show {study.hash[:12]}); to run it once more, change its title or deadline"
            )
        node.store.check_room()
        node.say(None, "proposal", {"study": study.plain(), "program": text}, study.hash)
        entry = node.library.entries[study.hash]
        return {
            **study_view(node, entry),
            "namesakes": [
                {"study": other.hash, "differences": differences(other.study, study)[:20]}
                for other in node.library.namesakes(study)
                if self._state(other).phase not in ENDED
            ],
        }

    def approve(self, which: str) -> dict[str, Any]:
        """Approve a study.

        Raises
        ------
        NotNowError
            If it is too late, or the owner's own settings are against it: says which, and how to allow it.
        """
        node = self._node
        entry = node.library.find(which)
        state = self._state(entry)
        name = node.config.name
        if state.phase in ENDED:
            raise NotNowError(f"it cannot be approved any more: {state.text}")
        if name in state.approvals:
            raise NotNowError(f"{name} has approved it already; it {state.text}")
        entry.study.check_members(node.consortium)
        refusals = node.config.refusals(entry.study)
        if refusals:
            raise NotNowError("it is not approved: " + "; ".join(refusals))
        node.say(entry, "approval", {})
        return study_view(node, entry)

    def reject(self, which: str, reason: str) -> dict[str, Any]:
        """Reject a study, for good; also one that was approved."""
        return self._end(which, "rejection", reason)

    def cancel(self, which: str, reason: str) -> dict[str, Any]:
        """Cancel a study, for good; one that runs is stopped everywhere."""
        return self._end(which, "cancellation", reason)

    def _end(self, which: str, kind: Literal["rejection", "cancellation"], reason: str) -> dict[str, Any]:
        node = self._node
        entry = node.library.find(which)
        state = self._state(entry)
        if state.phase in ENDED:
            raise NotNowError(f"it is over already: {state.text}")
        node.say(entry, kind, {"reason": reason})
        return study_view(node, entry)

    def run(self, which: str, *, dry: bool) -> dict[str, Any]:
        """Run a study, as soon as there is room for it here.

        Raises
        ------
        NotNowError
            If it cannot run now; says who or what is missing.
        """
        node = self._node
        entry = node.library.find(which)
        self._check_begins(entry)
        node.scheduler.enqueue(entry, dry)
        return study_view(node, entry)

    def prepare(self, which: str, *, runs: int, rows: int) -> dict[str, Any]:
        """Prepare material for later runs of a study, at all members at once.

        Raises
        ------
        NotNowError
            If it cannot be prepared now, or not at all; says why.
        """
        node = self._node
        entry = node.library.find(which)
        if not 1 <= runs <= MOST_RUNS or not 0 <= rows <= MOST_ROWS:
            raise NotNowError(f"material is prepared for 1 to {MOST_RUNS} runs, with at most {MOST_ROWS} rows each")
        if entry.study.preprocessing not in KEPT:
            raise NotNowError(
                f"preprocessing {entry.study.preprocessing!r} takes its material as it goes: only that of 'ot' can be "
                "prepared ahead of time"
            )
        if entry.study.security != "semi-honest":
            raise NotNowError("material with MACs (security 'malicious') ends with its session: it cannot be prepared")
        self._check_begins(entry)
        node.scheduler.prepare(entry, Preparation(runs, rows))
        return study_view(node, entry)

    def _check_begins(self, entry: Entry) -> None:
        """See that an attempt may begin now."""
        node = self._node
        state = self._state(entry)
        study = entry.study
        if state.active:
            raise NotNowError(f"it is under way already: {state.text}")
        if not state.can_run:
            last = "" if state.phase is not Phase.FAILED else "; propose it again, with another deadline or title"
            raise NotNowError(f"it cannot be run: it {_is(state)}{last}")
        study.check_members(node.consortium)
        refusals = node.config.refusals(study)
        if refusals:
            raise NotNowError("it is not run: " + "; ".join(refusals))
        absent = [name for name in study.members if name != node.config.name and name not in node.peers.connected]
        if absent:
            why = ", ".join(f"{name} ({node.peers.trouble(name)})" for name in absent)
            raise NotNowError(f"it takes all members at once, and there is no link to {why}")
        node.store.check_room()

    def _state(self, entry: Entry) -> StudyState:
        return entry.state(self._node.clock())


def _is(state: StudyState) -> str:
    return state.text if state.phase is Phase.PROPOSED else f"is {state.phase}: {state.text}"
