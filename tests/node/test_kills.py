"""Parties that are killed while material is made and used; ``python -m tests.node.kills --moments 50`` does more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("parties", "moments", "seed"), [(2, 6, 1), (3, 2, 2)])
def test_the_books_agree_whoever_is_killed_and_when(parties: int, moments: int, seed: int) -> None:
    """Processes of their own: a fork of a process with threads, which pytest's may be, is none to rely on."""
    command = ["-m", "tests.node.kills", "--moments", str(moments), "--parties", str(parties), "--seed", str(seed)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert sum(count for what, count in found["kills"].items() if what.endswith(": killed")) >= 1, found
    assert min(found["used"]) >= 1, found
