"""Which records a node takes, and how they spread: signed by members of the study, once, never from the future."""

import base64
import dataclasses
import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parties.governance import records as signed
from parties.governance.cards import make_card
from parties.governance.consortium import Consortium, join
from parties.governance.keys import NodeKey, generate
from parties.governance.records import Record
from parties.governance.studies import Study, study_of
from parties.identity import make_identity
from parties.node import library as library_module
from parties.node.gossip import Gossip
from parties.node.hello import ProtocolError
from parties.node.library import Entry, Library, NoStudyError, RefusedError, UnknownStudyError
from parties.node.store import Store, StoreError
from tests.node.world import NAMES, study_fields

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Members:
    """Keys of a consortium of three hospitals and one that takes no part, and what they sign."""

    def __init__(self) -> None:
        self.keys: dict[str, NodeKey] = {name: generate(name) for name in (*NAMES, "other")}
        self.consortium: Consortium = join(
            [
                make_card(key, name=name, organisation=name, role="party", address=None, relay="https://r")
                for name, key in self.keys.items()
            ],
            "hospitals",
        )
        self.study: Study = study_of(study_fields())

    def say(
        self,
        author: str,
        kind: Any,
        body: dict[str, Any] | None = None,
        study: Study | None = None,
        at: datetime.datetime = NOW,
    ) -> Record:
        about = study or self.study
        if kind == "proposal":
            body = {"study": about.plain(), "program": None}
        return signed.make(self.keys[author], "hospitals", author, kind, about.hash, body or {}, at)


@pytest.fixture(scope="module")
def members() -> Members:
    return Members()


@pytest.fixture
def library(members: Members, tmp_path: Path) -> Iterator[Library]:
    store = Store(tmp_path / "state")
    yield Library(store, members.consortium, "north")
    store.close()


def test_records_are_kept_and_read_back(members: Members, library: Library, tmp_path: Path) -> None:
    entry = library.take(members.say("city", "proposal"), NOW, sender="city")
    assert entry is not None
    library.take(members.say("city", "approval"), NOW, sender="south")  # passed on by another one
    assert library.take(members.say("city", "approval"), NOW) is None
    assert entry.state(NOW).approvals == ("city",)
    again = Library(library._store, members.consortium, "north")
    assert [one.id for one in again.entries[members.study.hash].records] == [one.id for one in entry.records]
    assert again.find(members.study.title).study == members.study


def over(members: Members, library: Library, title: str) -> Entry:
    """Propose a study, end it, and let the library know."""
    study = study_of({**study_fields(), "title": title})
    library.take(members.say("city", "proposal", study=study), NOW)
    entry = library.take(members.say("city", "cancellation", {"reason": "no"}, study=study), NOW)
    assert entry is not None
    assert entry.phase(NOW) == "cancelled"
    library.settle(entry)
    return entry


def in_memory(library: Library) -> list[str]:
    return [entry.title for entry in library.entries.values() if entry._content is not None]


def test_studies_that_are_over_are_put_away(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "SETTLED_IN_MEMORY", 2)
    first, *_ = [over(members, library, f"Study {number}") for number in range(5)]
    assert in_memory(library) == ["Study 3", "Study 4"]
    assert (first.title, first.proposer, first.phase(NOW)) == ("Study 0", "city", "cancelled")
    assert library.find("Study 0") is first
    assert in_memory(library) == ["Study 3", "Study 4"], "what lists need is not read back"
    assert [record.kind for record in first.records] == ["proposal", "cancellation"]
    assert in_memory(library) == ["Study 0", "Study 4"]
    assert first.state(NOW).text == "cancelled by city: no"


def test_a_study_that_was_put_away_takes_records(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "SETTLED_IN_MEMORY", 1)
    entry = over(members, library, "Study 0")
    over(members, library, "Study 1")
    late = members.say("south", "rejection", {"reason": "late"}, study=entry.study)
    over(members, library, "Study 2")
    assert in_memory(library) == ["Study 2"]
    assert library.take(late, NOW, sender="south") is entry
    assert library.take(late, NOW, sender="south") is None
    assert [record.kind for record in entry.records] == ["proposal", "cancellation", "rejection"]
    again = Library(library._store, members.consortium, "north")
    assert [one.id for one in again.entries[entry.hash].records] == [one.id for one in entry.records]
    assert again.record_for("city", late.id) == library.record_for("city", late.id) == late
    assert library.record_for("other", late.id) is None


def test_a_study_that_cannot_be_read_back_is_told_of(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library_module, "SETTLED_IN_MEMORY", 1)
    entry = over(members, library, "Study 0")
    identifier = entry.records[0].id
    over(members, library, "Study 1")
    shutil.rmtree(tmp_path / "state" / "studies" / entry.hash)
    for _ in range(2):
        with pytest.raises(StoreError, match="its files are gone"):
            library.record_for("city", identifier)
    assert library.damaged == [f"study {entry.hash[:12]}: its files are gone"]
    assert entry.phase(NOW) == "cancelled"


def test_the_same_proposal_of_another_member_is_the_same_study(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    library.take(members.say("south", "proposal"), NOW)
    assert library.take(members.say("city", "proposal", at=NOW - datetime.timedelta(seconds=5)), NOW) is None
    assert len(library.entries) == 1
    assert library.entries[members.study.hash].proposer == "city"


def refusal(
    library: Library, record: Record, sender: str | None = "city", now: datetime.datetime = NOW
) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        library.take(record, now, sender=sender)
    return caught.value


def test_forged_records_are_attacks(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    good = members.say("south", "approval")
    other = study_of({**study_fields(), "title": "Another"})
    for forged, complaint in (
        (dataclasses.replace(good, author="city"), "not with the key of city"),
        (dataclasses.replace(good, kind="rejection", body={"reason": "x"}), "was altered"),
        (dataclasses.replace(good, study=other.hash), "was altered"),
        (dataclasses.replace(good, consortium="others"), "for the consortium others"),
        (members.say("other", "approval"), "other takes no part"),
    ):
        found = refusal(library, forged)
        assert found.attack
        assert complaint in str(found)


def test_what_somebody_sends_who_takes_no_part_is_refused(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    found = refusal(library, members.say("city", "approval"), sender="other")
    assert found.attack
    assert "other takes no part" in str(found)


def test_a_study_that_is_not_ours_is_not_taken(members: Members, library: Library) -> None:
    without_us = study_of({**study_fields(("city", "south", "other")), "title": "Not ours"})
    assert "does not name north" in str(refusal(library, members.say("city", "proposal", study=without_us)))
    stranger = study_of({**study_fields(("city", "north", "elsewhere")), "title": "With strangers"})
    assert "no member 'elsewhere'" in str(refusal(library, members.say("city", "proposal", study=stranger)))
    assert "takes no part in the study that it proposes" in str(refusal(library, members.say("other", "proposal")))
    assert library.entries == {}


def test_records_from_the_future_are_refused_until_it_comes(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    later = NOW + datetime.timedelta(seconds=300)
    record = members.say("city", "approval", at=later)
    found = refusal(library, record)
    assert not found.attack
    assert "s in the future by our clock: set the clocks" in str(found)
    assert library.take(record, later) is not None


def test_two_statements_that_contradict_each_other(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    library.take(members.say("city", "run", {"attempt": 1, "dry": False}), NOW)
    found = refusal(library, members.say("city", "run", {"attempt": 1, "dry": True}))
    assert found.attack
    assert "city said run twice for attempt 1, in different ways: the first one counts" in str(found)
    library.take(members.say("city", "approval"), NOW)
    found = refusal(library, members.say("city", "approval", at=NOW - datetime.timedelta(seconds=5)))
    assert not found.attack


def test_attempts_are_bounded(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    assert "at most 100 attempts" in str(refusal(library, members.say("city", "run", {"attempt": 101, "dry": True})))


def test_open_proposals_of_one_member_are_bounded(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MOST_OPEN", 3)
    studies = [study_of({**study_fields(), "title": f"Study {k}"}) for k in range(5)]
    for study in studies[:3]:
        library.take(members.say("city", "proposal", study=study), NOW)
    assert "city has 3 studies open here" in str(refusal(library, members.say("city", "proposal", study=studies[3])))
    library.take(members.say("south", "proposal", study=studies[3]), NOW)
    library.take(members.say("city", "cancellation", {"reason": "no"}, study=studies[0]), NOW)
    library.take(members.say("city", "proposal", study=studies[4]), NOW)


def test_proposals_of_one_member_are_bounded_even_if_they_are_over(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MOST_OF_ONE", 2)
    for number in range(3):
        study = study_of({**study_fields(), "title": f"Study {number}"})
        proposal = members.say("city", "proposal", study=study)
        if number == 2:
            assert "city proposed" in str(refusal(library, proposal))
            continue
        library.take(proposal, NOW, sender="city")
        library.take(members.say("city", "cancellation", {"reason": "no"}, study=study), NOW, sender="city")
    library.take(members.say("south", "proposal"), NOW, sender="south")  # the others still may


def test_a_proposal_whose_deadline_has_passed_is_refused(members: Members, library: Library) -> None:
    later = NOW + datetime.timedelta(days=20_000)
    assert "has passed" in str(refusal(library, members.say("city", "proposal"), now=later))


def test_a_study_that_was_removed_does_not_come_back(members: Members, library: Library, tmp_path: Path) -> None:
    """Its old approvals may still be with others; taken back, they would let it run without new consent."""
    library.take(members.say("city", "proposal"), NOW)
    library._store.close()
    shutil.rmtree(tmp_path / "state" / "studies" / members.study.hash)
    store = Store(tmp_path / "state")
    again = Library(store, members.consortium, "north")
    assert "was removed" in str(refusal(again, members.say("city", "proposal")))
    another = study_of({**study_fields(), "title": "Another"})
    assert again.take(members.say("city", "proposal", study=another), NOW, sender="city") is not None
    store.close()


def test_a_title_that_fits_the_hash_of_another_study_is_ambiguous(members: Members, library: Library) -> None:
    """Titles that look like hashes are refused; should one be here all the same, nobody is misled."""
    entry = library.take(members.say("city", "proposal"), NOW)
    assert entry is not None
    prefix = entry.study.hash[:12]
    disguised = Entry(entry.study.model_copy(update={"title": prefix}), None)
    library.entries["0" * 64] = disguised
    with pytest.raises(NoStudyError, match="2 studies fit"):
        library.find(prefix)


def test_on_a_full_disk_a_record_is_not_taken(
    members: Members, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.take(members.say("city", "proposal"), NOW)
    record = members.say("city", "approval")

    def full(study: str, plain: dict[str, Any]) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(library._store, "append", full)
        with pytest.raises(StoreError):
            library.take(record, NOW)
    assert record.id not in library
    assert library.take(record, NOW) is not None


def test_a_study_is_found_by_what_people_call_it(members: Members, library: Library) -> None:
    library.take(members.say("city", "proposal"), NOW)
    for name in (members.study.hash, members.study.hash[:4], members.study.hash[:12].upper(), "Age"):
        assert library.find(name).study == members.study
    for name in ("", members.study.hash[:3], "age", "0" * 64):
        with pytest.raises(NoStudyError, match="sottovoce list"):
            library.find(name)
    other = study_of({**study_fields(), "minimum_parties": 3})
    library.take(members.say("city", "proposal", study=other), NOW)
    with pytest.raises(NoStudyError, match=r"2 studies fit 'Age': name one of .*minimum_parties is "):
        library.find("Age")


def test_a_damaged_study_does_not_keep_the_others_from_being_read(members: Members, library: Library) -> None:
    other = study_of({**study_fields(), "title": "Other"})
    for study in (members.study, other):
        library.take(members.say("city", "proposal", study=study), NOW)
    file = library._store.directory / "studies" / other.hash / "study.json"
    file.write_bytes(file.read_bytes().replace(b'"Other"', b'"0ther"'))
    again = Library(library._store, members.consortium, "north")
    assert set(again.entries) == {members.study.hash}
    (damage,) = again.damaged
    assert f"study {other.hash[:12]} on disk has the hash" in damage


# ---- between nodes --------------------------------------------------------------------------------


class Talk:
    """Two nodes' gossip, joined by lists instead of sockets."""

    def __init__(self, members: Members, directory: Path) -> None:
        self.mail: list[tuple[str, str, dict[str, Any]]] = []
        self.refused: list[tuple[str, str, bool]] = []
        self.taken: list[tuple[str, str]] = []
        self.now = NOW
        self.libraries: dict[str, Library] = {}
        self.gossips: dict[str, Gossip] = {}
        self.stores = []
        for name in ("north", "city"):
            store = Store(directory / name)
            self.stores.append(store)
            self.libraries[name] = Library(store, members.consortium, name)
            self.gossips[name] = self._gossip(name)

    def _gossip(self, name: str) -> Gossip:
        def push(peer: str, message: dict[str, Any]) -> None:
            self.mail.append((name, peer, message))

        def taken(entry: Entry, record: Record, sender: str) -> None:
            self.taken.append((name, record.kind))

        return Gossip(
            self.libraries[name],
            name,
            clock=lambda: self.now,
            push=push,
            on_taken=taken,
            on_refused=lambda sender, why, attack: self.refused.append((sender, why, attack)),
        )

    def deliver(self) -> int:
        count = 0
        while self.mail:
            sender, receiver, message = self.mail.pop(0)
            if receiver in self.gossips:
                assert self.gossips[receiver].hear(sender, message)
                count += 1
        return count

    def meet(self) -> None:
        self.gossips["north"].meet("city")
        self.gossips["city"].meet("north")


@pytest.fixture
def talk(members: Members, tmp_path: Path) -> Iterator[Talk]:
    made = Talk(members, tmp_path)
    yield made
    for store in made.stores:
        store.close()


def test_who_meets_ends_up_with_the_same_records(members: Members, talk: Talk) -> None:
    ready = {
        "attempt": 1,
        "certificate": base64.b64encode(make_identity("w").certificate).decode(),
        "dry": False,
        "nonce": "0" * 64,
        "version": "1",
        "fingerprint": "f",
    }
    for record in (
        members.say("north", "proposal"),
        members.say("north", "approval"),
        members.say("south", "approval"),
    ):
        talk.libraries["north"].take(record, NOW)
    for record in (
        members.say("city", "proposal"),
        members.say("city", "approval"),
        members.say("city", "ready", ready),
    ):
        talk.libraries["city"].take(record, NOW)
    talk.meet()
    talk.deliver()
    assert talk.refused == []
    states = [library.entries[members.study.hash].state(NOW) for library in talk.libraries.values()]
    assert states[0] == states[1]
    assert states[0].phase == "approved"
    talk.meet()
    assert talk.deliver() == 2  # both have everything


def test_a_record_goes_to_members_of_its_study_alone(members: Members, talk: Talk) -> None:
    entry = talk.libraries["north"].take(members.say("north", "proposal"), NOW)
    assert entry is not None
    talk.gossips["north"].announce(entry, entry.records[0])
    assert sorted(receiver for _, receiver, _ in talk.mail) == ["city", "south"]
    talk.mail.clear()
    talk.gossips["north"].meet("other")
    assert talk.mail == [("north", "other", {"kind": "have", "ids": []})]
    talk.mail.clear()
    talk.gossips["north"].hear("other", {"kind": "want", "ids": [entry.records[0].id]})
    assert talk.mail == []


def test_a_record_that_overtakes_its_proposal_is_asked_for_again(members: Members, talk: Talk) -> None:
    for record in (members.say("north", "proposal"), members.say("north", "approval")):
        talk.libraries["north"].take(record, NOW)
    approval = talk.libraries["north"].entries[members.study.hash].records[1]
    talk.meet()
    talk.mail.insert(1, ("north", "city", {"kind": "record", "record": approval.plain()}))  # after "have"
    talk.deliver()
    assert talk.libraries["city"].entries[members.study.hash].state(NOW).approvals == ("north",)
    assert talk.refused == []


def test_an_orphan_is_asked_for_once(members: Members, talk: Talk) -> None:
    message = ("north", "city", {"kind": "record", "record": members.say("north", "approval").plain()})
    talk.mail += [message, message]
    talk.deliver()
    (refused,) = talk.refused
    assert "whose proposal is not here" in refused[1]
    assert isinstance(refusal(talk.libraries["city"], members.say("north", "approval")), UnknownStudyError)


def test_the_author_hears_why_a_record_is_refused(members: Members, talk: Talk) -> None:
    for library in talk.libraries.values():
        library.take(members.say("north", "proposal"), NOW)
    ahead = NOW + datetime.timedelta(seconds=300)
    talk.libraries["north"].take(members.say("north", "approval", at=ahead), ahead)
    talk.meet()
    talk.deliver()
    assert talk.refused[0][0] == "north"
    (trouble,) = talk.libraries["north"].entries[members.study.hash].troubles.values()
    assert trouble.startswith("city refuses our approval: approval of north is dated 300 s in the future")
    talk.now = ahead
    talk.meet()
    talk.deliver()
    assert talk.libraries["city"].entries[members.study.hash].state(NOW).approvals == ("north",)


def test_an_attack_is_not_asked_for_again(members: Members, talk: Talk) -> None:
    good = members.say("north", "approval")
    forged = dataclasses.replace(good, author="south")
    talk.mail.append(("north", "city", {"kind": "record", "record": forged.plain()}))
    talk.deliver()
    ((_, why, attack),) = talk.refused
    assert attack
    assert "not with the key of south" in why
    talk.mail.append(("north", "city", {"kind": "have", "ids": [forged.id]}))
    assert talk.deliver() == 1


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "have"},
        {"kind": "have", "ids": ["x"]},
        {"kind": "have", "ids": ["0" * 64] * 1001},
        {"kind": "want", "ids": [3]},
        {"kind": "record"},
        {"kind": "record", "record": {"kind": "approval"}},
        {"kind": "refused", "why": "x"},
    ],
)
def test_messages_that_are_not_well_formed_end_the_link(talk: Talk, message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        talk.gossips["north"].hear("city", message)


def test_many_records_go_in_parts(members: Members, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    from parties.node import gossip

    monkeypatch.setattr(gossip, "_IDS_AT_ONCE", 2)
    for author in NAMES:
        talk.libraries["north"].take(members.say(author, "proposal"), NOW)
        talk.libraries["north"].take(members.say(author, "approval"), NOW)
    talk.meet()
    assert len(talk.mail) == 4
    talk.deliver()
    assert talk.libraries["city"].entries[members.study.hash].state(NOW).phase == "approved"
