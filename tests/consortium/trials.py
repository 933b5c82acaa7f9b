"""Trials of endurance: nodes that are killed, networks that are cut, studies without end.

The tests run each for a few rounds; ``scripts/soak`` runs them at full length. A trial raises AssertionError at the
first thing that is not as it should be.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parties.governance.studies import Study
from parties.node.ledger import check_ledgers
from tests.consortium.leftovers import left_behind, memory_mb, open_files, processes_in
from tests.consortium.nodes import ROOT, Consortium, Node, RefusedError, eventually
from tests.consortium.proxy import Proxy
from tests.consortium.studies import COUNT, LONG, MEAN, Draft, Rows, give_rows
from tests.ports import free_ports

Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing."""


@contextlib.contextmanager
def running(folder: Path, seed: int, **options: Any) -> Iterator[tuple[Consortium, list[Rows]]]:
    """Three hospitals and a dealer with data, up and linked; ends with nothing left behind."""
    variables = options.pop("variables", {})
    counts = options.pop("counts", (40, 30, 50))
    consortium = Consortium.found(folder, **options)
    for node in consortium:
        node.variables = variables
    rows = give_rows(consortium, np.random.default_rng(seed), counts)
    try:
        consortium.start()
        yield consortium, rows
        consortium.stop()
    except BaseException:
        for node in consortium:
            with contextlib.suppress(AssertionError):
                node.kill()
        raise
    finally:
        found = left_behind(folder, consortium.ports)
    assert not found, found


def propose(consortium: Consortium, title: str, by: str, analyses: Sequence[dict[str, Any]], **more: Any) -> Study:
    """Propose a study of a new title, approved by all."""
    draft = Draft(consortium, title, analyses, more=more)
    return consortium.propose(draft.write(consortium[by].directory / "study.toml"), by)


def views(consortium: Consortium, study: Study) -> dict[str, dict[str, Any]]:
    """Return what each member's node says of a study."""
    return {node.name: node.study(study.hash) for node in consortium}


def finish(consortium: Consortium, study: Study, by: str, *, seconds: float = 60.0) -> dict[str, Any]:
    """Run a study that is to succeed; else say what each node's owner can read of it."""
    view = consortium.run(study, by, seconds=seconds)
    assert view["phase"] == "finished", explain(consortium, study)
    return view


def explain(consortium: Consortium, study: Study) -> str:
    """Return where a study stands, and what the owners' notes say."""
    found = {name: (view["text"], view["notes"]) for name, view in views(consortium, study).items()}
    return "\n".join(f"{name}: {text} {notes}" for name, (text, notes) in found.items())


def results(consortium: Consortium, study: Study) -> list[Any]:
    """Return the result as each recipient has it, once all have it."""
    recipients = [consortium[name] for name in study.recipients]

    def all_have_it() -> list[Any]:
        found = [node.result(study.hash) for node in recipients]
        return [] if None in found else [result_of(one) for one in found if one is not None]

    found: list[Any] = eventually(all_have_it, f"all recipients have the result of {study.title!r}")
    return found


def result_of(kept: dict[str, Any]) -> Any:
    """Return what was computed from what a node keeps: without the salt of its hash, which is chance."""
    return {name: value for name, value in kept["result"].items() if name != "salt"}


def check_ledgers_of(consortium: Consortium) -> None:
    """No seed of any node was used twice."""
    ledgers = [node.state / "ledger.jsonl" for node in consortium if (node.state / "ledger.jsonl").exists()]
    assert ledgers, "no node has a ledger"
    found = check_ledgers(ledgers)
    assert not found, found


def no_workers_left(consortium: Consortium) -> None:
    """Of the consortium's processes, only the nodes are there."""
    nodes = {node.pid for node in consortium if node.process is not None}

    def others() -> dict[int, str]:
        return {pid: what for pid, what in processes_in(consortium.folder).items() if pid not in nodes}

    eventually(lambda: not others(), lambda: f"workers are gone: {others()}", seconds=10)


# ---- kill -9 --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """One round: who was killed when, and how the study ended."""

    who: str
    after_seconds: float
    phase: str
    text: str


def kills(
    consortium: Consortium, rng: random.Random, rounds: int, *, deadline_seconds: float = 60.0, say: Say = quiet
) -> list[Kill]:
    """Kill a random node at a random moment of a logistic regression, again and again.

    Each time the node is started again, as a service manager would, and the study has to end everywhere in time:
    with the same result at all recipients, or with an error that says why.
    """
    undisturbed = propose(consortium, "undisturbed", "north", [LONG])
    began = time.monotonic()
    finish(consortium, undisturbed, "north")
    length = time.monotonic() - began
    (wanted, *_) = results(consortium, undisturbed)
    say(f"undisturbed: {length:.1f} s")
    done = []
    for number in range(rounds):
        done.append(_kill(consortium, rng, number, length, wanted, deadline_seconds))
        say(f"kill {number + 1} of {rounds}: {done[-1]}")
    study = propose(consortium, "after all kills", "city", [MEAN])
    finish(consortium, study, "city")
    check_ledgers_of(consortium)
    return done


def _kill(
    consortium: Consortium, rng: random.Random, number: int, length: float, wanted: Any, deadline_seconds: float
) -> Kill:
    names = list(consortium.nodes)
    by, who = rng.choice(names[:-1]), rng.choice(names)
    study = propose(consortium, f"kill {number}", by, [LONG])
    after = rng.uniform(0, length)
    consortium.begin(study, by)
    time.sleep(after)
    consortium[who].kill()
    no_workers_of(consortium[who])
    time.sleep(rng.uniform(0, 2))
    consortium[who].start()
    view = _settled_everywhere(consortium, study, deadline_seconds)
    if view["phase"] == "finished":
        found = results(consortium, study)
        assert all(one == found[0] for one in found), "the recipients have different results"
        assert_close(found[0], wanted)
    else:
        assert view["phase"] in ("failed", "approved"), view["text"]
        assert view["text"], "no reason is given"
    consortium.wait()
    no_workers_left(consortium)
    check_ledgers_of(consortium)
    return Kill(who, round(after, 2), view["phase"], view["text"])


def no_workers_of(node: Node) -> None:
    """Nothing runs any more for a node that was killed."""
    eventually(
        lambda: not processes_in(node.directory),
        lambda: f"{node.name}'s processes are gone: {processes_in(node.directory)}",
    )


def _settled_everywhere(consortium: Consortium, study: Study, seconds: float) -> dict[str, Any]:
    """Wait until no node has anything to do for a study; returns the view of a recipient."""

    def over() -> bool:
        try:
            found = views(consortium, study)
        except (RefusedError, OSError):  # one is being started
            return False
        phases = {view["phase"] for view in found.values()}
        return len(phases) == 1 and all(view["over"] for view in found.values())

    eventually(over, f"{study.title!r} is over at all nodes", seconds=seconds, pause=0.2)
    return views(consortium, study)[study.recipients[0]]


def assert_close(found: Any, wanted: Any, where: str = "") -> None:
    """Two results agree up to the rounding of fixed point, which is random in the last places."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted.keys() - {"summary"}:
            assert_close(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_close(one, other, f"{where}[{number}]")
    elif isinstance(wanted, float) and not isinstance(wanted, bool):
        assert abs(found - wanted) <= 1e-4 * max(1.0, abs(wanted)), where
    else:
        assert found == wanted, where


# ---- cuts -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def through_proxies(
    folder: Path, seed: int, names: Sequence[str] = ("north", "city", "south", "helper"), **more: Any
) -> Iterator[tuple[Consortium, list[Rows], list[Proxy]]]:
    """A consortium whose members reach each other through proxies, which can fail, and draw the same seeds always."""
    with contextlib.ExitStack() as stack:
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        proxies = {name: stack.enter_context(Proxy(port)) for name, port in ports.items()}
        addresses = {name: f"127.0.0.1:{proxy.port}" for name, proxy in proxies.items()}
        path = os.pathsep.join([str(Path(__file__).parent / "fixed_seeds"), str(ROOT)])
        options = {"addresses": addresses, "ports": ports, "variables": {"PYTHONPATH": path}, **more}
        consortium, rows = stack.enter_context(running(folder, seed, **options))
        yield consortium, rows, list(proxies.values())


def cuts(
    consortium: Consortium,
    proxies: Sequence[Proxy],
    rng: random.Random,
    rounds: int,
    *,
    seconds: float = 5.0,
    say: Say = quiet,
) -> None:
    """Cut and freeze all connections at random moments of a logistic regression: in each run once, in either order.

    It must not fail, nor start anew, and the result must be the one of the undisturbed run, bit by bit: all runs draw
    the same seeds (see ``fixed_seeds``).
    """
    wanted, length = _with_the_same_seeds(consortium, "uncut", lambda study: None)
    for number in range(rounds):
        moments = sorted(rng.uniform(0.2 * length, length) for _ in range(2))
        faults = list(zip(moments, rng.sample(["cut", "freeze"], 2), strict=True))

        def disturb(study: Study, faults: Sequence[tuple[float, str]] = faults) -> None:
            slept = 0.0
            for moment, fault in faults:
                time.sleep(moment - slept)
                slept = moment
                for proxy in proxies:
                    getattr(proxy, fault)()
                time.sleep(seconds)
                for proxy in proxies:
                    proxy.mend()

        told = ", ".join(f"{fault} after {moment:.2f} s" for moment, fault in faults)
        found, _ = _with_the_same_seeds(consortium, f"cut {number}", disturb)
        assert found == wanted, f"{told}: the result is another one"
        say(f"cut {number + 1} of {rounds}: {told}, for {seconds:g} s each: the same result")
        consortium.wait()


def _with_the_same_seeds(consortium: Consortium, title: str, disturb: Callable[[Study], None]) -> tuple[Any, float]:
    """Run a study; return its result, and how long it took."""
    for node in consortium:
        (node.state / "ledger.jsonl").unlink(missing_ok=True)
    study = propose(consortium, title, "city", [LONG, COUNT], dry_run=False)
    began = time.monotonic()
    consortium.begin(study, "city")
    disturb(study)
    view = consortium.settle(study, "city", seconds=90)
    length = time.monotonic() - began
    assert view["phase"] == "finished", explain(consortium, study)
    assert view["attempts"]["used"] == 1, f"it took {view['attempts']['used']} attempts"
    first, *others = results(consortium, study)
    assert all(one == first for one in others), "the recipients have different results"
    return first, length


# ---- soak -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What the nodes held after a study: memory in MB and open files, by member."""

    seconds: float
    memory: dict[str, float]
    files: dict[str, int]


def soak(consortium: Consortium, seconds: float, *, studies: float = math.inf, say: Say = quiet) -> list[Sample]:
    """Run studies one after another for so long, or until there are so many; memory and open files stay flat.

    The first fifth of the time warms up. After that open files may not grow at all, and memory only by what a node
    has to keep of a study.
    """
    began, number, samples = time.monotonic(), 0, []
    while time.monotonic() - began < seconds and number < studies:
        number += 1
        by = consortium.parties[number % len(consortium.parties)].name
        study = propose(consortium, f"study {number}", by, [MEAN, COUNT], dry_run=False)
        finish(consortium, study, by)
        results(consortium, study)
        no_workers_left(consortium)
        samples.append(
            Sample(
                time.monotonic() - began,
                {node.name: memory_mb(node.pid) for node in consortium},
                {node.name: open_files(node.pid) for node in consortium},
            )
        )
        if number % 10 == 0:
            say(f"{samples[-1].seconds:.0f} s, {number} studies: {samples[-1]}")
    check_flat(samples)
    check_ledgers_of(consortium)
    return samples


# What a node may remember of a finished study is its name and the index of its records; the rest it reads back.
_MB_A_STUDY = 0.01
_MB_OF_CHANCE = 4.0


def check_flat(samples: Sequence[Sample]) -> None:
    """Compare the end of a soak with its beginning, without the warm-up."""
    warm = [sample for sample in samples if sample.seconds > 0.2 * samples[-1].seconds]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    studies = len(warm) - third
    for name in first[0].memory:
        files = [sorted(sample.files[name] for sample in part)[len(part) // 2] for part in (first, last)]
        assert files[1] <= files[0] + 1, f"{name} had {files[0]} open files, then {files[1]}"
        memory = [sorted(sample.memory[name] for sample in part)[len(part) // 2] for part in (first, last)]
        allowed = _MB_OF_CHANCE + _MB_A_STUDY * studies
        grown = memory[1] - memory[0]
        assert grown <= allowed, f"{name} grew by {grown:.1f} MB in {studies} studies"
