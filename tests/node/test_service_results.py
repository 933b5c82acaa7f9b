"""Results between recipients: whole, of the right digest, and to nobody else."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parties.governance.studies import study_of
from parties.node import results as results_module
from parties.node.hello import ProtocolError
from parties.node.library import Library
from parties.node.messages import result_digest
from parties.node.results import Results
from parties.node.store import Store, StoreError
from tests.node.test_service_library import NOW, Members
from tests.node.world import study_fields

STUDY = study_of({**study_fields(), "recipients": ["city", "north"]})
RESULT = {"analyses": {"mean age": {"mean": 45.5, "name": "Ärzte"}}, "summary": "x" * 1000}


@pytest.fixture(scope="module")
def members() -> Members:
    return Members()


class Ends:
    """Results of city and north, whose messages are handed over at once."""

    def __init__(self, members: Members, directory: Path) -> None:
        self.stores = {name: Store(directory / name) for name in ("city", "north")}
        self.results: dict[str, Results] = {}
        self.sent: list[dict[str, Any]] = []
        self.tamper = lambda message: message
        for name, store in self.stores.items():
            library = Library(store, members.consortium, name)
            library.take(members.say("city", "proposal", study=STUDY), NOW)
            self.results[name] = Results(store, library, push=self._push(name), clock=lambda: NOW)

    def _push(self, sender: str) -> Any:
        def push(receiver: str, message: dict[str, Any]) -> None:
            self.sent.append(message)
            if receiver in self.results:
                message = self.tamper(json.loads(json.dumps(message)))
                asyncio.get_running_loop().call_soon(self.results[receiver].hear, sender, message)

        return push

    def fetch(self, digest: str = result_digest(RESULT)) -> bool:
        return asyncio.run(self.results["north"].fetch(STUDY.hash, 1, digest, "city"))


@pytest.fixture
def ends(members: Members, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(members, tmp_path)
    yield made
    for store in made.stores.values():
        store.close()


def test_a_result_is_fetched_in_parts(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "PART_BYTES", 100)
    ends.results["city"].keep(STUDY.hash, 1, RESULT)
    assert ends.fetch()
    kept = ends.results["north"].kept(STUDY.hash)
    assert kept is not None
    assert (kept["result"], kept["from"], kept["attempt"]) == (RESULT, "city", 1)
    assert len(ends.sent) > 20
    assert ends.results["north"].attempt_of(STUDY.hash) == 1


def test_what_does_not_have_the_digest_is_not_kept(ends: Ends) -> None:
    ends.results["city"].keep(STUDY.hash, 1, RESULT)
    assert not ends.fetch("0" * 64)
    ends.tamper = lambda message: (
        {**message, "part": message["part"].replace("45.5", "45.6")} if "part" in message else message
    )
    assert not ends.fetch()
    assert ends.results["north"].kept(STUDY.hash) is None


@pytest.mark.parametrize(
    "changes",
    [{"part": 3}, {"total": "x"}, {"offset": 7}, {"part": ""}, {"total": 1}, {"total": 1 << 40}, {"part": "[[["}],
)
def test_answers_that_make_no_sense_end_the_fetch(ends: Ends, changes: dict[str, Any]) -> None:
    ends.results["city"].keep(STUDY.hash, 1, RESULT)
    ends.tamper = lambda message: {**message, **changes} if "part" in message else message
    assert not ends.fetch()


def test_a_peer_that_does_not_answer_is_not_waited_for(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "_PART_SECONDS", 0.05)
    ends.tamper = lambda message: {"kind": "result", "study": "other"}
    assert not ends.fetch()


def test_nobody_but_recipients_gets_it(ends: Ends) -> None:
    ends.results["city"].keep(STUDY.hash, 1, RESULT)
    for peer in ("south", "other", "north"):
        ends.sent.clear()
        ends.results["city"]._push = lambda receiver, message: ends.sent.append(message)
        assert ends.results["city"].hear(peer, {"kind": "result request", "study": STUDY.hash, "offset": 0})
        assert (ends.sent[0]["part"] != "") == (peer == "north")


def test_requests_that_are_none_end_the_link(ends: Ends) -> None:
    for message in ({}, {"study": 3, "offset": 0}, {"study": STUDY.hash, "offset": -1}, {"study": STUDY.hash}):
        with pytest.raises(ProtocolError):
            ends.results["city"].hear("north", {"kind": "result request", **message})
    assert not ends.results["city"].hear("north", {"kind": "other"})
    assert ends.results["city"].hear("north", {"kind": "result", "study": STUDY.hash})  # nobody asked


def test_a_result_is_kept_once(ends: Ends) -> None:
    results = ends.results["city"]
    results.keep(STUDY.hash, 1, RESULT)
    results.keep(STUDY.hash, 2, RESULT)
    with pytest.raises(StoreError, match="has a result already"):
        results.keep(STUDY.hash, 2, {"summary": "other"})
    kept = results.kept(STUDY.hash)
    assert kept is not None
    assert kept["attempt"] == 1


def test_a_result_that_was_altered_is_told_and_not_replaced(ends: Ends) -> None:
    ends.results["city"].keep(STUDY.hash, 1, RESULT)
    path = ends.stores["city"].directory / "studies" / STUDY.hash / "result.json"
    path.write_bytes(path.read_bytes().replace(b"45.5", b"45.6"))
    with pytest.raises(StoreError, match="was altered"):
        ends.results["city"].kept(STUDY.hash)
    ends.results["city"]._attempts.clear()
    assert ends.results["city"].attempt_of(STUDY.hash) == 0
