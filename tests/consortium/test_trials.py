"""Killed and cut off: a round of what ``scripts/soak`` does for long, and with a hospital more."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.consortium.trials import cuts, kills, running, through_proxies

TWO: dict[str, Any] = {"parties": ("north", "city"), "counts": (40, 30)}


@pytest.mark.timeout(300)
def test_a_killed_node_leaves_no_mask_used_twice_and_nothing_behind(tmp_path: Path, seed: int) -> None:
    with running(tmp_path / "c", seed, **TWO) as (consortium, _):
        done = kills(consortium, random.Random(seed), 1)
    assert len(done) == 1


@pytest.mark.timeout(300)
def test_cut_connections_resume(tmp_path: Path, seed: int) -> None:
    with through_proxies(tmp_path / "c", seed, ("north", "city", "helper"), **TWO) as (consortium, _, proxies):
        cuts(consortium, proxies, random.Random(seed), 1, seconds=1.0)
