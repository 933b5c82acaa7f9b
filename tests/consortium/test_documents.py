"""The pages for IT and for data-protection officers say what the code does: names, keys, numbers and messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties.governance.entries import LOG_FILE
from parties.node import config, doors, hello, library, store
from parties.node.config import NodeConfig
from protocols.release.disclosure import Disclosure
from tests.consortium.nodes import ROOT

OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
OFFICERS = (ROOT / "docs" / "for-data-protection-officers.md").read_text("utf-8")
PAGES = {"operations": OPERATIONS, "officers": OFFICERS}
# In a message, what stands for a name or a number of the reader's.
VARIES = (
    r"\.\.\.|\*[^*]*\*|\b\d[\d:.]*\b|\b(?:city|north|consortium\.toml|node\.toml|csv|sql)\b|\(|\)|TOML"
    r"|rows, in column 'age'|source: of|are missing|are beyond"
)
SHORTEST = 8


def section(page: str, heading: str) -> str:
    """The text under a heading."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def texts_in_code() -> str:
    """All texts that our modules may say, with a mark where a value is put in."""

    def texts(tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value

    modules = [path for layer in ("mpc", "protocols", "parties") for path in sorted((ROOT / layer).rglob("*.py"))]
    return "\n".join(text for path in modules for text in texts(ast.parse(path.read_text("utf-8"))))


def test_every_message_that_is_explained_is_one_that_is_said() -> None:
    said = re.sub(r"\s+", " ", texts_in_code())
    rows = re.findall(r"^\| (`.*?) \|", section(OPERATIONS, "Messages and what to do"), re.MULTILINE)
    assert len(rows) > 40
    unknown = []
    for message in re.findall(r"`([^`]+)`", "\n".join(rows)):
        fragments = [part.strip(" ,;:.") for part in re.split(VARIES, message)]
        unknown += [part for part in fragments if len(part) >= SHORTEST and part not in said]
    assert unknown == []


def test_every_key_of_node_toml_is_in_the_table_and_no_other() -> None:
    table = section(OPERATIONS, "node.toml")
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    named = set(re.findall(r"`\[*([a-z_]+)\]*`", " ".join(rows)))
    assert named == set(NodeConfig.model_fields) - {"file"}
    for model, row in ((config.Limits, "limits"), (config.Policy, "policy")):
        (line,) = [line for line in table.splitlines() if line.startswith(f"| `[{row}]`")]
        assert set(re.findall(r"`([a-z_]+)`", line)) == set(model.model_fields)
    assert f"`memory_mb` ({config.Limits().memory_mb})" in table
    assert f"`studies_at_once` ({config.Limits().studies_at_once})" in table


def test_every_figure_that_is_named_is_told() -> None:
    said = texts_in_code()
    named = set(re.findall(r"\bsottovoce_[a-z_]+", OPERATIONS))
    assert len(named) > 8
    assert {name for name in named if name.removesuffix("_total") not in said} == set()


def test_every_command_that_is_named_exists() -> None:
    from typer.main import get_command

    from parties.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for page in PAGES.values():
        named = set(re.findall(r"\bsottovoce ([a-z]+)", page)) - {"in", "sottovoce"}
        assert named - {"version"} <= known


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_disclosure_table_is_that_of_the_code(page: str) -> None:
    for name, rows, cells, parties in re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|", page, re.MULTILINE):
        preset = Disclosure.preset(name)
        assert (preset.minimum_rows, preset.minimum_cell, preset.minimum_parties) == (
            int(rows),
            int(cells),
            int(parties),
        )


def test_officers_see_all_presets() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section(OFFICERS, "Disclosure control"), re.MULTILINE)
    assert named == ["none", "datashield", "vantage6", "opensafely", "cms", "ons"]


def test_numbers_are_those_of_the_code() -> None:
    limits = section(OPERATIONS, "Limits")
    assert (
        f"{doors.MOST_UNDECIDED} in all, {doors.MOST_OF_ADDRESS} an address, {doors.HELLO_SECONDS:g} s each" in limits
    )
    assert f"within {hello.SKEW_SECONDS:g} s of each other" in limits
    assert f"{library.MOST_STUDIES:,}, of which {library.MOST_OPEN} open ones a proposer" in limits
    assert f"less than {store.RESERVE_BYTES >> 20} MiB of disk" in OPERATIONS
    assert f"`{LOG_FILE}`" in OPERATIONS


def test_service_file_is_complete() -> None:
    unit = re.findall(r"^```ini\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)[0]
    for word in (
        "[Unit]",
        "[Service]",
        "[Install]",
        "User=sottovoce",
        "LoadCredentialEncrypted=",
        "ExecReload=",
        "ReadWritePaths=",
    ):
        assert word in unit


def test_no_mark_is_left_to_fill_in() -> None:
    for page in PAGES.values():
        assert not re.findall(r"^[A-Z_]{5,}$", page, re.MULTILINE)
    assert Path(ROOT / "scripts" / "soak").stat().st_mode & 0o111
