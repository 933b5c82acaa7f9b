"""Three hospitals and a dealer, each a process with a directory of its own, on one machine and on several."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parties.governance.audit import verify
from parties.governance.keys import load_certificate
from tests.consortium.leftovers import left_behind
from tests.consortium.nodes import Consortium
from tests.consortium.relays import RelayProcess, web_certificate
from tests.consortium.studies import COUNT, MEAN, MODEL, Rows, give_rows, pooled
from tests.consortium.trials import check_ledgers_of, finish, propose, results, running
from tests.consortium.wan import NoNetworkError, Wan
from tests.ports import free_ports


def check_result(consortium: Consortium, rows: Sequence[Rows], found: Sequence[Any]) -> None:
    """All recipients have the same, and it is what the pooled rows give."""
    assert all(one == found[0] for one in found)
    everybody = pooled(rows)
    means = found[0]["analyses"]["means"]["values"]
    assert means["age"] == pytest.approx(everybody.age.mean(), abs=1e-6)
    assert means["dose"] == pytest.approx(everybody.dose.mean(), abs=1e-6)
    assert found[0]["analyses"]["count"]["values"] == {"helped": everybody.helped.sum()}
    assert len(found) == len(consortium.parties)


def check_logs(consortium: Consortium) -> None:
    """All logs hold, by what the others saw of them too, and no node complained of anything."""
    for node in consortium:
        witnesses = [other.state / "audit.jsonl" for other in consortium if other is not node]
        assert verify(node.state / "audit.jsonl", load_certificate(node.directory / "certificate.pem"), witnesses) == []
        for word in ("Traceback", "Warning", "ERROR", "never awaited", "never retrieved"):
            assert word not in node.said(), node.said()


def test_no_value_stands_anywhere_but_in_its_own_file(tmp_path: Path, seed: int) -> None:
    """Everything that nodes wrote, said or keep is searched for the digits of every single value that went in."""
    with running(tmp_path / "c", seed) as (consortium, rows):
        study = propose(consortium, "A study that is finished", "north", [MEAN, COUNT, MODEL])
        finish(consortium, study, "south")
        check_result(consortium, rows, results(consortium, study))
        alone = propose(consortium, "A study without a dealer", "city", [MEAN, COUNT], preprocessing="ot", dealer=None)
        finish(consortium, alone, "city")
        check_result(consortium, rows, results(consortium, alone))
        # One that fails because of the data: their owner is told what is wrong, by count, and the others that it is.
        wrong = consortium["city"].directory / "rows.csv"
        lines = wrong.read_text("utf-8").splitlines()
        wrong.write_text("\n".join([*lines, "119.5310428,twelve,0", "777.1234567,1.0,1"]), "utf-8")
        failing = propose(consortium, "A study that fails", "north", [MEAN])
        view = consortium.run(failing, "north")
        assert view["phase"] == "failed"
        assert "rows" not in view["text"]
        (note,) = [one["text"] for one in consortium["city"].study(failing.hash)["notes"]]
        assert "'age'" in note
        assert "'dose'" in note
        assert not consortium["north"].study(failing.hash)["notes"] or "'dose'" not in str(
            consortium["north"].study(failing.hash)["notes"]
        )
        marks = {mark for one in rows for mark in one.marks()} | {b"119.5310", b"777.1234", b"twelve"}
    searched = 0
    for path in (tmp_path / "c").rglob("*"):
        if path.is_file() and path.name != "rows.csv":
            content = path.read_bytes()
            searched += 1
            assert not [mark for mark in marks if mark in content], path
    assert searched > 30
    check_logs(consortium)
    check_ledgers_of(consortium)


@contextlib.contextmanager
def wide_area(folder: Path, seed: int, hub: str = "") -> Iterator[tuple[Consortium, list[Rows]]]:
    """Members on hosts of their own, 20 ms and a lost packet in a hundred away from each other."""
    parties, dealer = ("north", "city", "south"), "helper"
    members = (*parties, dealer)
    with contextlib.ExitStack() as stack:
        try:
            wan = stack.enter_context(Wan([*members, *([hub] if hub else [])], hub))
        except NoNetworkError as refused:
            pytest.skip(f"network namespaces cannot be made here: {refused}")
        port = free_ports(1)[0]
        before = {name: wan.at(name) for name in members}
        options: dict[str, Any] = {"before": before, "dealer": dealer, "ports": dict.fromkeys(members, port)}
        if hub:
            web_certificate(folder / hub, [wan.address(hub)])
            consortium = Consortium.found(
                folder,
                parties,
                relay=f"https://{wan.address(hub)}:{port}",
                listens=lambda name: False,
                settings={"relay_ca": str(folder / hub / "certificate.pem")},
                **options,
            )
            file = consortium["north"].directory / "consortium.toml"
            stack.enter_context(RelayProcess(folder / hub, f"0.0.0.0:{port}", file, wan.at(hub)))
        else:
            addresses = {name: f"{wan.address(name)}:{port}" for name in members}
            consortium = Consortium.found(folder, parties, addresses=addresses, **options)
            for node in consortium:
                node.host = "0.0.0.0"
        rows = give_rows(consortium, np.random.default_rng(seed))
        try:
            consortium.start()
            yield consortium, rows
            consortium.stop()
        finally:
            for node in consortium:
                node.kill()
    assert left_behind(folder) == []


@pytest.mark.parametrize("hub", ["", "relay"], ids=["direct", "relay"])
def test_hosts_of_their_own_over_a_slow_network_that_loses_packets(hub: str, tmp_path: Path, seed: int) -> None:
    with wide_area(tmp_path / "c", seed, hub) as (consortium, rows):
        study = propose(consortium, "far away", "north", [MEAN, COUNT], dry_run=False)
        by = random.Random(seed).choice(consortium.parties).name
        finish(consortium, study, by, seconds=100)
        check_result(consortium, rows, results(consortium, study))
    check_logs(consortium)
