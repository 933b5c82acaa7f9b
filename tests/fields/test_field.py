"""The fields themselves: names, instances, the choice of a backend, and the bounds that the C loops state."""

import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc import _native, field
from mpc.field import BACKEND_VARIABLE, F61, F127, GF, Field, KernelWarning

ROOT = Path(__file__).parents[2]


def test_attributes() -> None:
    assert [(f.name, f.modulus, f.bits, f.half, f.element_bytes) for f in (F61, F127, GF(5))] == [
        ("F61", 2**61 - 1, 61, 2**60 - 1, 8),
        ("F127", 2**127 - 1, 127, 2**126 - 1, 16),
        ("GF(5)", 5, 3, 2, 1),
    ]
    assert [repr(f) for f in (F61, F127, GF(7))] == ["F61", "F127", "GF(7)"]
    assert F127.zeros((2, 3)).shape == (2, 3)
    assert F127.zeros(2).dtype == np.dtype([("lo", "<u8"), ("hi", "<u8")])


def test_there_is_one_instance_for_each_prime() -> None:
    assert GF(5) is GF(5)
    assert GF(2**61 - 1) is F61
    assert GF(2**127 - 1) is F127
    for one in (F61, F127, GF(5)):
        assert copy.copy(one) is one
        assert copy.deepcopy(one) is one


@pytest.mark.parametrize("modulus", [-7, 0, 1, 2, 4, 9, 561, 2**31 - 3, 2**31, 2**31 + 11, 2**89 - 1])
def test_other_moduli_are_refused(modulus: int) -> None:
    with pytest.raises(ValueError, match="GF takes an odd prime below"):
        GF(modulus)


class TestBackend:
    @pytest.fixture(autouse=True)
    def forget(self) -> Iterator[None]:
        """Choices are made once a process; here each test makes them anew."""
        field._native_table.cache_clear()
        field._warn_once.cache_clear()
        yield
        field._native_table.cache_clear()
        field._warn_once.cache_clear()

    def test_the_twin_can_be_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "numpy")
        for modulus in (F61.modulus, F127.modulus):
            chosen = Field(modulus)
            assert chosen.backend == "numpy"
            assert not isinstance(chosen._kernels.matmul, _native.Matmul)

    def test_without_the_extension_there_is_one_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
        monkeypatch.setattr(_native, "load", lambda modulus: None)

        def use_all() -> None:
            for modulus in (F61.modulus, F127.modulus, F127.modulus):
                chosen = Field(modulus)
                chosen.add(chosen.zeros(1), chosen.zeros(1))
                assert chosen.backend == "numpy"

        with pytest.warns(KernelWarning, match="the C kernels of Sottovoce were not built") as warned:
            use_all()
        assert len(warned) == 1

    def test_children_do_not_repeat_the_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
        monkeypatch.setattr(_native, "load", lambda modulus: None)
        monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Field(F61.modulus).backend == "numpy"

    def test_the_extension_can_be_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "c")
        monkeypatch.setattr(_native, "load", lambda modulus: None)
        with pytest.raises(ImportError, match="was not built"):
            _ = Field(F61.modulus).backend

    def test_an_unknown_choice_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "fast")
        with pytest.raises(ValueError, match="'c' or 'numpy', not 'fast'"):
            _ = Field(F61.modulus).backend

    def test_small_primes_are_numpy_everywhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "c")
        assert GF(5).backend == "numpy"


@pytest.fixture(scope="module")
def checked_extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C loops, built so that they check their bounds."""
    build = tmp_path_factory.mktemp("build")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(build), "--build-temp", str(build)]
    environment: dict[str, Any] = {**os.environ, "SOTTOVOCE_DEBUG": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    built = [*build.glob("mpc/_kernels*.so"), *build.glob("mpc/_kernels*.pyd")]
    if not built:
        pytest.skip(f"no extension was built: {done.stderr[-300:]}")
    return built[0]


def test_no_bound_of_the_c_loops_breaks_at_any_edge(checked_extension: Path) -> None:
    program = ROOT / "tests" / "fields" / "edge_program.py"
    command = [sys.executable, str(program), str(checked_extension)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["F61", "F127", "checked"]


def test_a_broken_bound_stops_the_checked_build(checked_extension: Path) -> None:
    """So the test above could have failed."""
    program = ROOT / "tests" / "fields" / "edge_program.py"
    command = [sys.executable, str(program), str(checked_extension), "break"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "bound broken" in done.stderr
