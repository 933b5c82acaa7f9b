"""The repository keeps its word: what ships, what the documents say, what the commands do."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMANDS = [*(f"scripts/{name}" for name in ("test", "demo", "check", "bench", "soak", "accuracy")), ".ci/run"]


def environment(**changed: str) -> dict[str, str]:
    """Our own, without what would change the modules, the warnings or the kernels of a child."""
    ours = ("PYTHONPATH", "PYTHONWARNINGS", "SOTTOVOCE_KERNELS")
    return {name: value for name, value in os.environ.items() if name not in ours} | changed


# Versions and packages


def test_changelog_starts_with_the_version() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == PYPROJECT["project"]["version"]


def test_packages_are_listed_one_by_one() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for layer in ("mpc", "protocols", "parties")
        for path in (ROOT / layer).rglob("__init__.py")
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


def test_python_versions_agree() -> None:
    project = PYPROJECT["project"]
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert project["requires-python"] == f">={named[0]},<3.{int(named[-1].partition('.')[2]) + 1}"


# What ships


@pytest.fixture(scope="module", params=["a compiler", "no compiler"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Path]:
    """The project's wheel, built from a copy of the sources: whether it holds the extension, where it is."""
    source = tmp_path_factory.mktemp("source") / "sottovoce"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mpc", "protocols", "parties", "tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    # With run-time checks the loops compile three times as fast.
    compiler = {"CC": "false", "CXX": "false"} if request.param == "no compiler" else {"SOTTOVOCE_DEBUG": "1"}
    subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_wheel; build_wheel('dist')"],
        cwd=source,
        env=environment(**compiler),
        check=True,
        capture_output=True,
        timeout=150,
    )
    (built,) = (source / "dist").glob("*.whl")
    built_here = any((ROOT / "mpc").glob("*.so"))  # else this machine has no compiler to test with
    return built_here and request.param == "a compiler", built


def test_wheel_holds_the_packages_alone(wheel: tuple[bool, Path]) -> None:
    has_extension, path = wheel
    names = zipfile.ZipFile(path).namelist()
    top = {name.partition("/")[0] for name in names}
    assert top == {"mpc", "protocols", "parties", f"sottovoce-{PYPROJECT['project']['version']}.dist-info"}
    assert {f"{layer}/py.typed" for layer in ("mpc", "protocols", "parties")} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith((".so", ".pyd")) for name in names) == has_extension
    assert not [name for name in names if "test" in name or name.endswith((".c", ".pem", ".key"))]


def test_wheel_multiplies(wheel: tuple[bool, Path], tmp_path: Path) -> None:
    """Also without the extension: then numpy does the work, and one warning says so."""
    has_extension, path = wheel
    zipfile.ZipFile(path).extractall(tmp_path)
    program = (
        # An editable installation may have put in a finder, which would add the extension of the sources.
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in f.__module__]\n"
        "import mpc; from mpc import F61, F127; print(mpc.__file__)\n"
        "for field in (F61, F127, F61):\n"
        "    x = field.encode([-3, field.half])\n"
        "    print(field.backend, *field.decode(field.mul(x, field.encode([5, 2]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    backend = "c" if has_extension else "numpy"
    lines = [str(tmp_path / "mpc" / "__init__.py"), *[f"{backend} -15 -1"] * 3]
    assert done.stdout.splitlines() == lines, done.stderr
    assert done.stderr.count("Warning:") == (0 if has_extension else 1), done.stderr


# Commands


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_a_sound_script(command: str) -> None:
    path = ROOT / command
    assert os.access(path, os.X_OK)
    assert path.read_text("utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", path], check=True, timeout=10)


def test_longest_files_of_tests_are_there() -> None:
    """A name that is no longer one would let a long file begin last."""
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


# Documents


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists():
            broken.append(link)
        elif anchor and anchor not in map(slug, re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)):
            broken.append(link)
    assert not broken


def run_program(script: Path, folder: Path) -> None:
    """In a folder of its own, as a reader would, with figures drawn to files."""
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_readme_programs_run(tmp_path: Path) -> None:
    """Each Python block of the README is a whole program that a reader can paste."""
    programs = blocks(ROOT / "README.md", "python")
    assert programs
    for number, program in enumerate(programs):
        script = tmp_path / f"program_{number}.py"
        script.write_text(program, "utf-8")
        run_program(script, tmp_path)


# Two examples have tests of their own: tests/test_examples.py, tests/consortium/test_example.py.
EXAMPLES = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "hospital_collaboration.py"})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    run_program(example, tmp_path)
