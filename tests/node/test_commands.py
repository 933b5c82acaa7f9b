"""The owner's commands, as a person and as a script uses them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from mpc.errors import SottovoceError
from parties.commands import node as node_commands
from parties.commands import sandbox as sandbox_commands
from parties.commands import studies as study_commands
from parties.node.messages import Failed
from parties.node.sandbox import SandboxError, make_sandbox, nodes_of, start_all, stop_all
from parties.node.store import running_pid
from tests.node.test_local import Serving
from tests.node.world import NAMES, World

ROOT = Path(__file__).parents[2]


def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    for module in (node_commands, sandbox_commands, study_commands):
        module.register(made)
    return made


def invoke(*arguments: object, node: Path | None = None) -> Result:
    words = [str(one) for one in arguments]
    if node is not None:
        words += ["--node", str(node)]
    return CliRunner().invoke(app(), words)


class Commands:
    """Runs commands against nodes that serve in a thread."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.directory = serving.world.directory

    def __call__(self, *arguments: object, at: str = "north", code: int = 0) -> str:
        found = invoke(*arguments, node=self.directory / at)
        if isinstance(found.exception, SottovoceError):
            assert code == 1, found.exception
            text = str(found.exception)
            assert "\n" not in text
            return text
        assert found.exit_code == code, (found.output, found.exception)
        return found.output

    def study(self, title: str = "Age", more: str = "") -> Path:
        fields = self.serving.world.study(title=title).plain()
        file = self.directory / "study.toml"
        file.write_text(
            f'format = 1\ntitle = "{title}"\npurpose = "p"\nconsortium = "hospitals"\n'
            f'contributors = ["city", "north", "south"]\nrecipients = ["city", "north"]\npreprocessing = "prss"\n'
            f'disclosure = "none"\ndeadline = {fields["deadline"]}\n{more}'
            '[[columns]]\nname = "age"\ntype = "number"\nlower = 0\nupper = 120\n'
            '[[analyses]]\nname = "mean age"\nprotocol = "mean"\ncolumns = ["age"]\n'
        )
        return file

    def wait_for(self, phase: str, title: str = "Age") -> None:
        until = time.monotonic() + 10
        while any(json.loads(self("status", title, "--json", at=name))["phase"] != phase for name in NAMES):
            assert time.monotonic() < until, self("status", title)
            time.sleep(0.02)

    def agreed(self, title: str = "Age") -> None:
        self("propose", self.study(title))
        self.wait_for("proposed", title) if self.known(title) else None
        for name in NAMES:
            self("approve", title, at=name)
        self.wait_for("approved", title)

    def known(self, title: str) -> bool:
        until = time.monotonic() + 10
        while any(title not in self("list", "--json", at=name) for name in NAMES):
            assert time.monotonic() < until
            time.sleep(0.02)
        return True


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with Serving(World(tmp_path)) as serving:
        yield Commands(serving)


def test_from_proposal_to_result(commands: Commands) -> None:
    assert "no studies" in commands("list")
    said = commands("propose", commands.study(), "--approve")
    assert "Age: waits for the approval of city and south" in said
    commands.known("Age")
    assert "sottovoce approve" in commands("list", at="south")
    shown = commands("show", "Age", at="south")
    for part in ("Purpose", "learn the results: city, north", "mean of age", "number from 0", "approved by north"):
        assert part in shown
    assert "all have approved" not in commands("approve", "Age", at="city")
    assert "all have approved" in commands("approve", "Age", at="south")
    commands.wait_for("approved")
    said = commands("run", "Age", "--wait")
    assert "mean 45.0625" in said
    assert "mean 45.0625" in commands("result", "Age", at="city")
    assert "its results go to city, north" in commands("result", "Age", at="south", code=1)
    kept = json.loads(commands("result", "Age", "--json", at="city"))
    assert kept["result"]["analyses"]["mean age"]["mean"] == 45.0625
    assert json.loads(commands("list", "--json"))[0]["phase"] == "finished"
    assert json.loads(commands("status", "--json"))["name"] == "north"
    assert "up     since" in commands("status")


def test_a_result_is_written_to_a_file_that_is_private(commands: Commands, tmp_path: Path) -> None:
    commands.agreed()
    commands("run", "Age", "--wait")
    out = tmp_path / "mine.json"
    assert commands("result", "Age", "--out", out) == ""
    assert out.stat().st_mode & 0o777 == 0o600
    assert json.loads(out.read_text())["result"]["summary"] == "mean 45.0625"
    assert "is not overwritten" in commands("result", "Age", "--out", out, code=1)


def test_the_exit_status_tells_how_it_went(commands: Commands) -> None:
    commands.agreed()
    commands.serving.world.bench.plan = lambda name, attempt, dry: (
        Failed(error_type="DataError", text="private") if name == "city" else "hang"
    )
    assert "DataError" in commands("run", "Age", "--wait", code=study_commands.FAILED)
    commands.serving.world.bench.plan = lambda name, attempt, dry: "hang"
    view = json.loads(commands("run", "Age", "--wait", "--timeout", 1, "--json", code=study_commands.NOT_OVER))
    assert view["phase"] in ("waiting", "running")
    assert "Age: cancelled by south: enough" in commands("cancel", "Age", "--reason", "enough", at="south")
    commands.wait_for("cancelled")
    assert "cancelled by south" in commands("status", "Age", "--wait", code=study_commands.FAILED)
    assert "it is over already" in commands("cancel", "Age", "--reason", "x", code=1)
    assert "private" in commands("show", "Age", at="city")
    assert "private" not in commands("show", "Age", at="north")


def test_a_dry_run_succeeds_without_a_result(commands: Commands) -> None:
    commands.agreed()
    assert "the dry run succeeded" in commands("run", "Age", "--dry", "--wait")


def test_what_is_wrong_is_told_in_a_line(commands: Commands, tmp_path: Path) -> None:
    assert "columns" in commands("propose", commands.study(more="[[columns]]\n"), code=1)
    assert "sottovoce list" in commands("approve", "Nothing", code=1)
    assert "there is no" in str(invoke("list", node=tmp_path / "nowhere").exception)
    commands("propose", commands.study())
    assert "was proposed already, by north" in commands("propose", commands.study(), code=1)
    commands.study(more="minimum_parties = 3\n")
    again = invoke("propose", tmp_path / "study.toml", node=commands.directory / "north")
    assert again.exit_code == 0
    assert "warning: another study of this title is open" in again.output
    assert "minimum_parties is 2 in the first, 3 in the second" in again.output
    assert "2 studies fit" in commands("approve", "Age", code=1)
    assert "rejected by north: not now" in commands(
        "reject", json.loads(commands("list", "--json"))[0]["study"], "--reason", "not now"
    )


def test_words_of_others_cannot_steer_a_terminal(commands: Commands) -> None:
    commands("propose", commands.study(title="[bold red]Age[/]"))
    commands.known("[bold red]Age[/]")
    assert "[bold red]Age[/]" in commands("list", at="city")
    assert "[bold red]Age[/]" in commands("show", "[bold red]Age[/]", at="city")


def test_commands_need_no_heavy_imports() -> None:
    """The help of everything comes soon."""
    program = (
        "import sys\nfrom parties.cli import app\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(*sorted({'aiohttp', 'pydantic', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


# ---- whole nodes as processes ---------------------------------------------------------------------


def processes_of(directory: Path) -> list[int]:
    """All processes that have this directory in their command line or work below it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes().decode("utf-8", "replace")
                place = str((process / "cwd").readlink())
            except OSError:
                continue
            if str(directory) in line or place.startswith(str(directory)):
                found.append(int(process.name))
    return found


def test_a_sandbox_from_making_to_stopping(tmp_path: Path) -> None:
    """Real processes with real workers: what a new user does in six commands."""
    home = tmp_path / "sandbox"
    said = invoke("sandbox", home)
    assert said.exit_code == 0, said.exception
    assert "sottovoce up" in said.output
    assert "exists already" in str(invoke("sandbox", home).exception)
    try:
        assert "north is up (process" in invoke("up", home).output
        assert invoke("up", home).exit_code == 0  # those that run are left alone
        assert invoke("propose", home / "study.toml", node=home / "north").exit_code == 0
        for name in ("north", "city", "south"):
            until = time.monotonic() + 10
            while not isinstance(invoke("approve", "Readmission", node=home / name).exception, SottovoceError):
                assert time.monotonic() < until
        run = invoke("run", "Readmission", "--wait", node=home / "north")
        assert run.exit_code == 0, (run.output, run.exception)
        assert "Logistic Regression on Shared Data" in run.output
        result: dict[str, Any] = json.loads(invoke("result", "Readmission", "--json", node=home / "city").output)
        assert result["result"]["analyses"]["readmission"]["coef"]
    finally:
        stopped = stop_all(home)
    assert stopped == ["city", "north", "south"]
    assert processes_of(home) == []
    assert "no node was running" in invoke("down", home).output
    for name in stopped:
        assert not (home / name / "state" / "node.sock").exists()
        assert list((home / name / "state" / "workers").rglob("worker-*")) == []


def test_a_sandbox_that_cannot_start_says_why_and_stops_again(tmp_path: Path) -> None:
    home = tmp_path / "sandbox"
    names = make_sandbox(home, 2, with_dealer=True)
    assert names == ["north", "city", "dealer"]
    (home / "city" / "key.pem").chmod(0o644)
    with pytest.raises(SandboxError, match=r"city did not start: .*chmod 600"):
        start_all(home, 30.0)
    assert all(running_pid(config.state) is None for config in nodes_of(home).values())
    assert processes_of(home) == []
    with pytest.raises(SandboxError, match="is no sandbox"):
        nodes_of(tmp_path)


def test_the_dealer_is_not_started_as_a_party(tmp_path: Path) -> None:
    home = tmp_path / "sandbox"
    make_sandbox(home, 2, with_dealer=True)
    wrong = invoke("node", "--config", home / "dealer")
    assert "start it with sottovoce dealer" in str(wrong.exception)
    wrong = invoke("dealer", "--config", home / "north" / "node.toml")
    assert "start it with sottovoce node" in str(wrong.exception)
