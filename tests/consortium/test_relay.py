"""Nodes that can only dial out, and a relay that is not to be trusted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parties.demo_reference import fit_in_the_clear
from parties.governance.studies import Study
from tests.consortium.leftovers import left_behind
from tests.consortium.nodes import ROOT, SOTTOVOCE, Consortium, eventually
from tests.consortium.relays import RelayProcess, web_certificate
from tests.consortium.studies import COUNT, LONG, MEAN, Rows, give_rows, pooled
from tests.consortium.trials import check_ledgers_of, finish, propose, results
from tests.ports import free_ports

HOSTILE = (sys.executable, str(ROOT / "tests" / "consortium" / "hostile_relay.py"))


@dataclass(frozen=True)
class Firewalled:
    """Three hospitals that listen nowhere, their rows, and where the relay at which they meet has to listen."""

    consortium: Consortium
    rows: list[Rows]
    folder: Path
    listen: str

    def relay(self, program: Sequence[str] = (*SOTTOVOCE, "relay")) -> RelayProcess:
        """Make a relay for them; it runs in a ``with`` block."""
        return RelayProcess(
            self.folder, self.listen, self.consortium["north"].directory / "consortium.toml", program=program
        )

    def check(self, found: dict[str, Any]) -> None:
        """A model is that of the pooled rows, and so is the count."""
        everybody = pooled(self.rows)
        wanted = fit_in_the_clear(np.column_stack([everybody.age, everybody.dose]), everybody.helped, l2=1.0)
        assert found["analyses"]["long"]["coef"] == pytest.approx(wanted.coef, rel=1e-3)
        assert found["analyses"]["count"]["values"] == {"helped": everybody.helped.sum()}

    def reconnects(self, study: Study) -> int:
        """How often north's worker had to connect anew in a study."""
        entries = self.consortium["north"].audit()
        (found,) = [e["fields"] for e in entries if e["event"] == "sent" and e["fields"]["study"] == study.hash]
        return int(found["reconnects"])


@pytest.fixture(scope="module")
def firewalled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewalled]:
    """Their nodes run; each test brings a relay."""
    folder = tmp_path_factory.mktemp("firewalled")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    web_certificate(folder / "relay", ["localhost"])
    consortium = Consortium.found(
        folder,
        dealer=None,
        relay=f"https://localhost:{listen.rpartition(':')[2]}",
        listens=lambda name: False,
        settings={"relay_ca": "../relay/certificate.pem"},
    )
    rows = give_rows(consortium, np.random.default_rng(1))
    try:
        consortium.start(healthy=False)
        yield Firewalled(consortium, rows, folder / "relay", listen)
        consortium.stop()
        check_ledgers_of(consortium)
    finally:
        for node in consortium:
            node.kill()
    assert left_behind(folder, consortium.ports) == []


def test_relay_that_is_restarted_is_found_again(firewalled: Firewalled) -> None:
    consortium = firewalled.consortium
    with firewalled.relay():
        consortium.wait(60)
        study = propose(consortium, "in two halves", "north", [LONG, COUNT])
        consortium.begin(study, "north")
        eventually(lambda: consortium["north"].study(study.hash)["phase"] == "running", "it runs")
    with firewalled.relay():
        view = consortium.settle(study, "north", seconds=90)
        assert view["phase"] == "finished", view["text"]
        first, *others = results(consortium, study)
        firewalled.check(first)
        assert all(one == first for one in others)
        consortium.wait(60)
        afterwards = propose(consortium, "afterwards", "city", [MEAN])
        finish(consortium, afterwards, "city")
        results(consortium, afterwards)
        assert firewalled.reconnects(afterwards) == 0


def test_relay_that_tampers_is_noticed_and_changes_no_result(firewalled: Firewalled) -> None:
    """What it altered is thrown away, and what it lost sent again, over connections made anew."""
    consortium = firewalled.consortium
    with firewalled.relay():
        consortium.wait(60)
        study = propose(consortium, "tampered with", "north", [LONG, COUNT], resume_seconds=60)
    with firewalled.relay((*HOSTILE, "400")) as hostile:
        consortium.wait(60)
        consortium.begin(study, "north")
        view = consortium.settle(study, "north", seconds=150)
        assert view["phase"] == "finished", view["text"]
        for found in results(consortium, study):
            firewalled.check(found)
        assert "broke a rule" not in hostile.said()  # whoever broke it was the relay
    assert firewalled.reconnects(study) > 0
