"""``sottovoce estimate``, as a person types it."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mpc.errors import SottovoceError
from parties import simulate
from parties.commands import estimate
from parties.study_file import load_study

STUDY = Path(__file__).parent.parent.parent / "examples" / "three_hospitals" / "study.toml"

PROGRAM = """
from protocols import secure_mean

inputs = [(1, 2), (3, 4), (5, 7)]

async def study(party, data):
    return await secure_mean(party, [data], bound=10)
"""


def run(*words: object) -> Any:
    app = typer.Typer()
    estimate.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, SottovoceError):
        raise result.exception
    return result


def test_of_a_python_file(tmp_path: Path) -> None:
    """The inputs are taken as they are, although they look like shapes; the costs are those of a real run."""
    file, figures = tmp_path / "my_study.py", tmp_path / "costs.json"
    file.write_text(PROGRAM, "utf-8")
    result = run(file, "--json", figures)
    assert result.exit_code == 0, result.output
    assert "Cost preview: 3 parties, preprocessing prss" in result.output
    assert "time on WAN" in result.output
    found = json.loads(figures.read_text("utf-8"))
    study = load_study(file)
    done = simulate(study.program, study.inputs, in_process=True)
    assert done[0].tolist() == pytest.approx([3, 13 / 3])
    assert sum(found["bytes_sent"]) == done.costs.bytes_sent
    assert found["rounds"] == done.costs.rounds


def test_of_a_study_file(tmp_path: Path) -> None:
    figures = [tmp_path / "few.json", tmp_path / "many.json"]
    results = [run(STUDY, "--rows", rows, "--json", file) for rows, file in zip((100, 200), figures, strict=True)]
    for result in results:
        assert result.exit_code == 0, result.output
    few, many = (json.loads(file.read_text("utf-8")) for file in figures)
    assert few["parties"] == 3
    assert few["rounds"] == many["rounds"]
    assert few["bytes_sent"] < many["bytes_sent"]


def test_of_a_study_of_tables_where_members_may_cheat(tmp_path: Path) -> None:
    """The checks and the material with MACs are in it."""
    text = STUDY.read_text("utf-8")
    tables = '[[analyses]]\nname = "parts"\nprotocol = "proportion"\ncolumn = "malignant"\n'
    found = {}
    for security in ("semi-honest", "malicious"):
        file, figures = tmp_path / f"{security}.toml", tmp_path / f"{security}.json"
        file.write_text(text[: text.index("[[analyses]]")].replace('"semi-honest"', f'"{security}"') + tables, "utf-8")
        assert run(file, "--json", figures).exit_code == 0
        found[security] = json.loads(figures.read_text("utf-8"))
    assert found["malicious"]["rounds"] > found["semi-honest"]["rounds"] + 20
    assert sum(found["malicious"]["bytes_sent"]) > sum(found["semi-honest"]["bytes_sent"])


def test_what_it_refuses(tmp_path: Path) -> None:
    file = tmp_path / "my_study.py"
    file.write_text(PROGRAM.replace("(3, 4), ", ""), "utf-8")
    assert "honest majority" in run(file, "--preprocessing", "prss").output
    with pytest.raises(SottovoceError, match="preprocessing dealer"):
        run(STUDY, "--preprocessing", "prss")
    assert run(tmp_path / "nothing.py").exit_code == 2


def test_a_program_of_somebody_else_does_not_run(tmp_path: Path) -> None:
    import hashlib

    text = "raise SystemExit('it ran')\n"
    (tmp_path / "study.py").write_text(text, "utf-8")
    body = STUDY.read_text("utf-8")
    body = body[: body.index("[[analyses]]")]
    digest = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "study.toml").write_text(f'{body}\n[program]\nfile = "study.py"\nsha256 = "{digest}"\n', "utf-8")
    with pytest.raises(SottovoceError, match="runs confined or not at all"):
        run(tmp_path / "study.toml")
