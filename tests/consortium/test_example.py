"""From keys to an audited result: ``examples/three_hospitals/run``, as a reader runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpc import F127
from tests.consortium.leftovers import left_behind
from tests.consortium.nodes import ROOT

EXAMPLE = ROOT / "examples" / "three_hospitals" / "run"
AT_ONCE = ROOT / "tests" / "consortium" / "walkthrough_at_once.py"


def run_example(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the example with this interpreter as the active one."""
    (folder / "temporary").mkdir()
    ours = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
    environment = {name: os.environ[name] for name in ours if name in os.environ}
    environment |= {"TMPDIR": str(folder / "temporary"), "SOTTOVOCE_KERNELS": F127.backend}
    environment |= {} if EXAMPLE in words else {"PYTHONPATH": str(ROOT)}
    # A virtual environment's python must be called by its own path to be that environment's.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize("way", [[EXAMPLE], [sys.executable, AT_ONCE, "--relay"]], ids=["direct", "relay"])
def test_example_goes_from_keys_to_an_audited_result(way: list[str | Path], tmp_path: Path) -> None:
    """Directly as a reader runs it; through a relay with commands that load once what they need."""
    done = run_example(tmp_path, *way)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all four read the same to each other" in done.stdout
    assert "Logistic Regression on Shared Data" in done.stdout
    assert "own rows used     170, and 0 left out" in done.stdout
    assert done.stdout.count("as 3 other logs saw it") == 4
    assert ("$ sottovoce relay" in done.stdout) == ("--relay" in way)
    means, errors = (float(part.split()[0].rstrip(",")) for part in done.stdout.split("by at most ")[1:3])
    assert means < 1e-6
    assert errors < 1e-3
    assert left_behind(tmp_path / "temporary") == []
    assert list((tmp_path / "temporary").iterdir()) == []
