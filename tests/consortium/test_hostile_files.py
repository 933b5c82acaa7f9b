"""Files and names that others made up: refused at once, in one line, and nothing is written."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from parties.cli import main
from tests.consortium.nodes import Node


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int | str | None
    stdout: str
    stderr: str


class Commands:
    """Runs commands in this process, as ``sottovoce`` would in its own: hundreds of starts would take minutes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, node: Node, *words: str | Path) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["sottovoce", *map(str, words)])
        self._monkeypatch.setenv("SOTTOVOCE_NODE", str(node.directory))
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return Done(ended.value.code, said.out, said.err)


@pytest.fixture
def sottovoce(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(monkeypatch, capsys)


BOMBS = {
    "too large": 'a = "' + "x" * (2 << 20) + '"\n',
    "nested arrays": "a = " + "[" * 50_000 + "]" * 50_000 + "\n",
    "nested tables": "a = " + "{a=" * 20_000 + "1" + "}" * 20_000 + "\n",
    "dotted keys": ".".join(["a"] * 60_000) + " = 1\n",
    "many tables": "".join(f"[a{k}.b.c.d]\n" for k in range(12_000)),
    "a number of a million digits": "a = " + "9" * 200_000 + "\n",
    "many columns": "[[columns]]\nname = 'a'\n" * 9_000,
    "not UTF-8": "a = '\udcff'\n",
    "a lone control character": 'title = "\x00"\n',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("what", ["study", "card", "consortium"])
def test_toml_bomb_is_refused_at_once(what: str, bomb: str, north: Node, sottovoce: Commands, tmp_path: Path) -> None:
    file = tmp_path / "bomb.toml"
    file.write_bytes(bomb.encode("utf-8", "surrogateescape"))
    words: dict[str, list[str | Path]] = {
        "study": ["propose", file],
        "card": ["consortium", "join", "name", file, file, "--out", tmp_path / "out.toml"],
        "consortium": ["consortium", "show", file],
    }
    began = time.monotonic()
    done = sottovoce(north, *words[what])
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("sottovoce: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 1000
    assert time.monotonic() - began < 5
    assert not (tmp_path / "out.toml").exists()


@pytest.mark.parametrize("name", ["../north", "a/b", "", "NORTH", "a" * 33, "a\nb", "-x", "north.key"])
def test_name_with_a_path_is_refused(name: str, north: Node, sottovoce: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    done = sottovoce(north, "keygen", "--directory", folder, f"--name={name}", "--organisation", "x")
    assert done.returncode in (1, 2)
    assert not list(tmp_path.rglob("*.pem"))
    done = sottovoce(
        north, "consortium", "join", f"--out={tmp_path / 'c.toml'}", "--", name, *[north.directory / "card.toml"] * 2
    )
    assert done.returncode in (1, 2)
    assert not (tmp_path / "c.toml").exists()


@pytest.mark.parametrize("which", ["../../north", "..%2f..%2fkey.pem", "*", "", "0"])
def test_study_that_is_named_by_a_path_is_unknown(which: str, north: Node, sottovoce: Commands) -> None:
    for command in ("show", "approve", "run", "result"):
        done = sottovoce(north, command, "--", which)
        assert done.returncode in (1, 2)
        assert "no study is called" in done.stderr
