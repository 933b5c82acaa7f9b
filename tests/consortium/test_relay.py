"""Nodes that can only dial out, and a relay that is not to be trusted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.consortium.leftovers import left_behind
from tests.consortium.nodes import ROOT, SOTTOVOCE, Consortium, eventually
from tests.consortium.relays import RelayProcess, web_certificate
from tests.consortium.studies import COUNT, LONG, MEAN, give_rows
from tests.consortium.trials import assert_close, check_ledgers_of, finish, propose, results
from tests.ports import free_ports

HOSTILE = (sys.executable, str(ROOT / "tests" / "consortium" / "hostile_relay.py"))


@contextlib.contextmanager
def behind_firewalls(folder: Path, seed: int) -> Iterator[tuple[Consortium, Path, str]]:
    """Three hospitals that listen nowhere; yields them, the relay's folder, and where it has to listen."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    web_certificate(folder / "relay", ["localhost"])
    consortium = Consortium.found(
        folder,
        dealer=None,
        relay=f"https://localhost:{listen.rpartition(':')[2]}",
        listens=lambda name: False,
        settings={"relay_ca": "../relay/certificate.pem"},
    )
    give_rows(consortium, np.random.default_rng(seed))
    try:
        yield consortium, folder / "relay", listen
        consortium.stop()
    finally:
        for node in consortium:
            node.kill()
    assert left_behind(folder, consortium.ports) == []


def test_relay_that_tampers_is_noticed_and_changes_no_result(tmp_path: Path, seed: int) -> None:
    """A study through an honest relay, and one through a hostile one: the same result, by connections made anew."""
    with behind_firewalls(tmp_path / "c", seed) as (consortium, folder, listen):

        def relay(program: Sequence[str]) -> RelayProcess:
            return RelayProcess(folder, listen, consortium["north"].directory / "consortium.toml", program=program)

        with relay((*SOTTOVOCE, "relay")):
            consortium.start()
            honest = propose(consortium, "honest", "north", [LONG, COUNT])
            finish(consortium, honest, "north")
            (wanted, *_) = results(consortium, honest)
            tampered = propose(consortium, "tampered with", "north", [LONG, COUNT], resume_seconds=60)
        with relay((*HOSTILE, "400")) as hostile:
            consortium.wait(60)
            consortium.begin(tampered, "north")
            view = consortium.settle(tampered, "north", seconds=150)
            assert view["phase"] == "finished", view["text"]
            for found in results(consortium, tampered):
                assert_close(found, wanted)
            assert "broke a rule" not in hostile.said()  # whoever broke it was the relay
        reconnects = [
            entry["fields"]["reconnects"] for entry in consortium["north"].audit() if entry["event"] == "sent"
        ]
        assert reconnects[0] == 0
        assert sum(reconnects[1:]) > 0
        check_ledgers_of(consortium)


def test_relay_that_is_restarted_is_found_again(tmp_path: Path, seed: int) -> None:
    with behind_firewalls(tmp_path / "c", seed) as (consortium, folder, listen):
        file = consortium["north"].directory / "consortium.toml"
        with RelayProcess(folder, listen, file):
            consortium.start()
            study = propose(consortium, "in two halves", "north", [LONG])
            consortium.begin(study, "north")
            eventually(lambda: consortium["north"].study(study.hash)["phase"] == "running", "it runs")
        with RelayProcess(folder, listen, file):
            view = consortium.settle(study, "north", seconds=90)
            assert view["phase"] == "finished", view["text"]
            consortium.wait(60)
            finish(consortium, propose(consortium, "afterwards", "city", [MEAN]), "city")
