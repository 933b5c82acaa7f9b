"""Which loops are used, and what is said where the C extensions are missing."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import numpy as np
from mpc import F61
from mpc.ot._native import TWIN, loops
from mpc.ot.hashing import Hash
F61.add(F61.encode([1]), F61.encode([2]))
print(loops() is TWIN, F61.backend, Hash(bytes(16))(np.zeros((1, 2), np.uint64), 0).reshape(-1)[0])
"""


def run(*missing: str, choice: str = "") -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "SOTTOVOCE_KERNELS")}
    ours |= {"SOTTOVOCE_KERNELS": choice} if choice else {}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *missing], env=ours, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("missing", [["mpc._transfers"], ["mpc._kernels", "mpc._transfers"]])
def test_one_warning_where_an_extension_is_missing(missing: list[str]) -> None:
    done = run(*missing)
    assert done.stdout.split()[0] == "True", done.stderr
    assert done.stderr.count("Warning:") == 1


def test_the_choice_is_kept() -> None:
    quiet = run("mpc._kernels", "mpc._transfers", choice="numpy")
    assert quiet.stdout.split()[:2] == ["True", "numpy"]
    assert not quiet.stderr
    refused = run("mpc._transfers", choice="c")
    assert refused.returncode
    assert "ImportError" in refused.stderr
