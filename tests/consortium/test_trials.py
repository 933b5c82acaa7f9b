"""Killed, cut off and used without a pause: a few rounds of what ``scripts/soak`` does for long."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.consortium.trials import Sample, check_flat, cuts, kills, running, soak, through_proxies

SOAK_SECONDS = 60.0


@pytest.mark.timeout(300)
def test_killed_nodes_leave_no_mask_used_twice_and_nothing_behind(tmp_path: Path, seed: int) -> None:
    with running(tmp_path / "c", seed) as (consortium, _):
        done = kills(consortium, random.Random(seed), 2)
    assert len(done) == 2


@pytest.mark.timeout(300)
def test_cut_connections_resume(tmp_path: Path, seed: int) -> None:
    with through_proxies(tmp_path / "c", seed) as (consortium, _, proxies):
        cuts(consortium, proxies, random.Random(seed), 2, seconds=1.0)


@pytest.mark.timeout(300)
def test_memory_and_open_files_stay_flat(tmp_path: Path, seed: int) -> None:
    with running(tmp_path / "c", seed) as (consortium, _):
        samples = soak(consortium, SOAK_SECONDS)
    assert len(samples) > 5


@pytest.mark.parametrize(("memory", "files"), [(3.0, 0), (0.0, 1)], ids=["memory", "files"])
def test_a_leak_would_be_noticed(memory: float, files: int) -> None:
    """The check itself is tried: on what flat samples look like, and on leaks of one file or 3 MB a study."""
    flat = [Sample(t, {"north": 50.0 + t % 3}, {"north": 14}) for t in map(float, range(60))]
    check_flat(flat)
    leaking = [
        Sample(one.seconds, {"north": one.memory["north"] + k * memory}, {"north": one.files["north"] + k * files})
        for k, one in enumerate(flat)
    ]
    with pytest.raises(AssertionError, match="north"):
        check_flat(leaking)
