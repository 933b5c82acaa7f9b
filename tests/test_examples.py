"""The examples and the commands, run as a user runs them: in processes of their own."""

import inspect
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mpc import F127, Party, mask, open_
from mpc.memory import run_in_memory
from parties import demo
from parties.demo_data import BOUNDS, FEATURES, MOST, held_out, hospitals, pooled
from parties.demo_reference import fit_in_the_clear, largest_difference, quality
from parties.demo_watch import Board, watched
from parties.study_file import StudyError, load_study

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "hospital_collaboration.py"
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    # Where there is no compiler, having chosen numpy leaves out the warning, which is tested elsewhere.
    environment["SOTTOVOCE_KERNELS"] = F127.backend
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sottovoce(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("-c", "from parties.cli import main; main()", *arguments, cwd=cwd, **variables)


def write_study(folder: Path, text: str) -> Path:
    path = folder / "my_study.py"
    path.write_text(textwrap.dedent(text), "utf-8")
    return path


# The hospitals


@pytest.mark.parametrize("count", range(2, MOST + 1))
def test_hospitals_share_out_all_patients(count: int) -> None:
    from sklearn.datasets import load_breast_cancer

    found = hospitals(count)
    X = np.concatenate([pooled(found)[0], held_out(found)[0]])
    y = np.concatenate([pooled(found)[1], held_out(found)[1]])
    data = load_breast_cancer()
    rows = np.column_stack([X, y])
    expected = np.column_stack([data.data, 1 - data.target])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    assert len({h.name for h in found}) == count
    assert all(0 < h.y.sum() < len(h.y) for h in found)


def test_hospitals_differ_in_size_and_case_mix() -> None:
    found = hospitals()
    sizes, malignant = [len(h.y) for h in found], [h.y.mean() for h in found]
    assert sizes == sorted(sizes, reverse=True)
    assert malignant[0] > 0.5 > 0.2 > malignant[2]
    assert len(FEATURES) == len(BOUNDS) == found[0].X.shape[1]
    assert all((np.abs(h.X) <= BOUNDS).all() for h in found)


def test_hospitals_show_no_patient_in_their_repr() -> None:
    assert repr(hospitals()[0]) == "Hospital(name='Referral centre')"


def test_reference_is_the_penalised_maximum() -> None:
    """The gradient of the penalised log-likelihood is zero, and errors are those of statsmodels without penalty."""
    import statsmodels.api as sm

    X, y = pooled(hospitals())
    X = X[:, [0, 1, 4]]
    fit = fit_in_the_clear(X, y, l2=1.0)
    Z, deviation = (X - X.mean(axis=0)) / X.std(axis=0), X.std(axis=0)
    p = 1 / (1 + np.exp(-(fit.intercept + X @ fit.coef)))
    assert np.allclose(Z.T @ (y - p), fit.coef * deviation, atol=1e-3)
    unpenalised = fit_in_the_clear(X, y, l2=1e-9)
    theirs = sm.Logit(y, sm.add_constant(X)).fit(disp=False)
    assert np.allclose(unpenalised.std_err, theirs.bse, rtol=1e-4)
    assert quality(unpenalised, X, y).log_loss == pytest.approx(-theirs.llf / len(y), rel=1e-6)


# The demonstration


def test_demo(tmp_path: Path) -> None:
    done = sottovoce("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" alone ") == 3
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert (tmp_path / "sottovoce-demo.png").read_bytes().startswith(PNG)


def test_demo_of_five_needs_no_unicode(tmp_path: Path) -> None:
    arguments = ("--parties", "5", "--preprocessing", "dealer", "--figure", "picture.svg")
    done = sottovoce("demo", *arguments, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" alone ") == 5
    assert done.stdout.isascii()
    assert "</svg>" in (tmp_path / "picture.svg").read_text("utf-8")


def test_example_for_somebody_who_watches(tmp_path: Path) -> None:
    done = run(EXAMPLE, cwd=tmp_path, FORCE_COLOR="1")  # to rich that is a terminal
    assert (done.returncode, done.stderr) == (0, "")
    assert "newton" in done.stdout.partition("What all of them learn")[0]
    assert "Logistic Regression" in done.stdout
    assert (tmp_path / "sottovoce-hospitals.png").read_bytes().startswith(PNG)


def test_example_and_demo_run_the_same_study() -> None:
    """The example spells the study out for readers; installed code cannot import it from there."""
    example = runpy.run_path(str(EXAMPLE))
    assert inspect.getsource(example["study"]) == inspect.getsource(demo.study)


def test_joint_model_is_the_pooled_one() -> None:
    from parties import simulate

    centres = hospitals()
    results = simulate(demo.study, centres, in_process=True)
    X, y = pooled(centres)
    for found in results:
        assert largest_difference(found.model, fit_in_the_clear(X, y, l2=demo.L2)) < 1e-3
        assert (found.patients, found.malignant) == (len(y), y.sum())
        assert np.allclose(found.means, X.mean(axis=0), rtol=1e-9)
        assert np.allclose(found.deviations, X.std(axis=0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("size", [100, 20_000], ids=["from each to each", "in chunks"])
def test_watched_party_sees_all_values_masked(parties: int, size: int) -> None:
    """All of them, however they are opened; and the mask is what makes them uniform."""
    from scipy.stats import kstest

    async def program(party: Party, data: np.ndarray) -> None:
        (x, *_) = await party.share(data, bound=1)
        await mask(party.at("stage"), x)
        await open_(party.at("result"), x)

    board = Board()
    inputs = [np.ones(size, np.int64)] * parties
    outcomes = run_in_memory(watched(program, board), inputs, preprocessing="dealer")
    sights = [sight for _, sight in outcomes]
    assert sights[1:] == [None] * (parties - 1)
    assert sights[0].step == "stage/mask#1"
    assert sights[0].values.size == size
    assert kstest(sights[0].values, "uniform").pvalue > 1e-9
    assert [stage.name for stage in board.read()] == ["share", "stage", "result"]


@pytest.mark.parametrize("figure", ["missing/picture.png", "picture.foo"])
def test_demo_refuses_a_figure_it_cannot_write(figure: str, tmp_path: Path) -> None:
    """At once, and not when all is computed."""
    done = sottovoce("demo", "--figure", figure, cwd=tmp_path)
    assert done.returncode == 2
    assert "--figure" in done.stderr
    assert done.stdout == ""


# sottovoce simulate


def test_simulate_runs_the_example(tmp_path: Path) -> None:
    done = sottovoce("simulate", EXAMPLE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "All 3 parties got" in done.stdout
    assert "patients: 426" in done.stdout
    assert "elements opened" in done.stdout


SUM = """
    from protocols import secure_sum

    async def study(party, data):
        return {"total": await secure_sum(party, data), "rank": party.rank}

    inputs = [1, 20, 300]
"""


@pytest.mark.parametrize(
    "arguments",
    ["", "--preprocessing dealer", "--in-process", "--preprocessing ot --security malicious", "--security malicious"],
)
def test_simulate_tells_results_that_differ(arguments: str, tmp_path: Path) -> None:
    done = sottovoce("simulate", write_study(tmp_path, SUM), *arguments.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for rank in range(3):
        assert f"Party {rank} got\n\ntotal: 321\nrank: {rank}\n" in done.stdout


FAULTS = {
    "no study": ("inputs = [1, 2, 3]", "defines no study"),
    "study is no coroutine": ("def study(party, data): ...\ninputs = [1, 2]", "defines no study"),
    "study takes one argument": ("async def study(party): ...\ninputs = [1, 2]", "two arguments"),
    "no inputs": ("async def study(party, data): ...", "inputs"),
    "one input": ("async def study(party, data): ...\ninputs = [1]", "2 or more"),
    "inputs fail": (
        "async def study(party, data): ...\ndef inputs():\n    return open('no such file')",
        "line 3: FileNotFoundError",
    ),
    "wrong syntax": ("async def study(party, data):\n    return (", "line 2: SyntaxError"),
    "fails to load": ("import numpy\n\nnumpy.no_such_thing", "line 3: AttributeError"),
    "needs a module": ("import no_such_module", "line 1: ModuleNotFoundError"),
}


@pytest.mark.parametrize(("text", "said"), FAULTS.values(), ids=FAULTS)
def test_study_file_says_what_is_wrong_with_it(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(StudyError, match=said) as caught:
        load_study(write_study(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_simulate_tells_it_in_a_line(tmp_path: Path) -> None:
    text, said = FAULTS["fails to load"]
    done = sottovoce("simulate", write_study(tmp_path, text), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sottovoce: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


FAILING = """
    async def study(party, data):
        if party.rank == 1:
            return {}[data]
        await party.share(data, bound=1000)

    inputs = [1, 4711, 3]
"""


def test_simulate_names_who_failed_and_shows_no_data(tmp_path: Path) -> None:
    done = sottovoce("simulate", write_study(tmp_path, FAILING), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "party 1: KeyError" in done.stderr
    assert "my_study.py:4 in study" in done.stderr
    assert "4711" not in done.stderr
    assert "Traceback" not in done.stderr


def test_simulate_in_process_shows_the_whole_error(tmp_path: Path) -> None:
    """There it is one process, which is the reader's own: nobody else's data can stand in a traceback."""
    done = sottovoce("simulate", "--in-process", write_study(tmp_path, FAILING), cwd=tmp_path)
    assert done.returncode == 1
    assert "KeyError: 4711" in done.stderr


def test_simulate_refuses_a_preprocessing_that_does_not_suit(tmp_path: Path) -> None:
    study = write_study(tmp_path, SUM.replace("[1, 20, 300]", "[1, 20]"))
    done = sottovoce("simulate", study, "--preprocessing", "prss", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--preprocessing" in done.stderr


def test_simulate_refuses_a_security_that_does_not_suit(tmp_path: Path) -> None:
    done = sottovoce(
        "simulate", write_study(tmp_path, SUM), "--security", "malicious", "--preprocessing", "prss", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "malicious" in done.stderr


def test_version(tmp_path: Path) -> None:
    done = sottovoce("version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("sottovoce ")
    assert done.stdout.endswith("kernels)\n")


def test_commands_say_what_extra_they_need(tmp_path: Path) -> None:
    """Without scikit-learn, as after a plain `pip install sottovoce`."""
    hide = "import sys; sys.modules['sklearn'] = sys.modules['sklearn.datasets'] = None"
    done = run("-c", f"{hide}; from parties.cli import main; main()", "demo", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'sottovoce[examples]'" in done.stderr
