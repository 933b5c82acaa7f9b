"""Used without a pause: a few of the studies that ``scripts/soak`` runs for long."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.consortium.trials import Sample, check_flat, running, soak

STUDIES = 6


@pytest.mark.timeout(300)
def test_memory_and_open_files_stay_flat(tmp_path: Path, seed: int) -> None:
    """Two hospitals and a dealer, which is all kinds of process that there are."""
    with running(tmp_path / "c", seed, parties=("north", "city"), counts=(40, 30)) as (consortium, _):
        samples = soak(consortium, math.inf, studies=STUDIES)
    assert len(samples) == STUDIES


@pytest.mark.parametrize("studies", [STUDIES, 60])
@pytest.mark.parametrize(("memory", "files"), [(3.0, 0), (0.0, 1)], ids=["memory", "files"])
def test_a_leak_would_be_noticed(memory: float, files: int, studies: int) -> None:
    """The check itself is tried: on what flat samples look like, and on leaks of one file or 3 MB a study."""
    flat = [Sample(1.0 + t, {"north": 50.0 + t % 3}, {"north": 14}) for t in range(studies)]
    check_flat(flat)
    leaking = [
        Sample(one.seconds, {"north": one.memory["north"] + k * memory}, {"north": one.files["north"] + k * files})
        for k, one in enumerate(flat)
    ]
    with pytest.raises(AssertionError, match="north"):
        check_flat(leaking)
