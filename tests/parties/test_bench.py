"""The benchmark measures what it says; how fast is not for tests to judge."""

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mpc import F61, multiply
from parties import bench, bench_online
from parties.bench import chosen, main, plan, table
from parties.bench_limits import fastest_of, measure_limits, median
from parties.bench_links import measure_link
from parties.bench_material import measure_material
from parties.bench_online import measure
from parties.bench_rows import analyses, measure_rows, memory
from parties.bench_work import Row, Work, vectors, workloads


def test_a_row_counts_what_was_sent() -> None:
    work = Work("1000 products", 1000, "product", 1.0, vectors(F61), multiply)
    row = measure(work, "prss", 1e9, repetitions=1)
    # Two operands of 8 bytes an entry, to each of two others, in one round.
    assert (row.bytes_per_party, row.rounds) == (2 * 1000 * 8 * 2, 1)
    assert row.seconds == row.all_seconds[0] > 0
    assert row.per_second == 1000 / row.seconds
    # All parties' bytes at a gigabyte a second, and some arithmetic.
    assert row.limit_seconds > 3 * row.bytes_per_party / 1e9
    assert row.peak_memory_bytes > 10 * 2**20


def test_material_is_measured_with_a_dealer() -> None:
    row = measure_material("dealer", F61, 1000, 1.0)
    assert row.per_second > 0
    assert len(row.all_seconds) == 5


def test_every_row_has_a_goal_and_a_line() -> None:
    rows = [
        Row(work.name, "prss", work.amount, work.unit, work.goal_seconds, 1.5, (1.5,), 1.0, 10, 2, 0, 0.5, 3.0)
        for work in workloads(quick=True)
    ]
    assert all(row.goal_seconds > 0 for row in rows)
    out = io.StringIO()
    Console(file=out, width=160).print(table(rows))
    assert all(row.name in out.getvalue() for row in rows)


def test_the_plain_stream_runs() -> None:
    limits = fastest_of(1, measure_limits)
    assert limits["stream_bytes_per_second"] > 1e6
    assert 0 < limits["echo_seconds"] < 1


def test_a_link_is_measured() -> None:
    echo, stream = measure_link(echoes=10, pieces=5, repetitions=2)
    assert len(echo) == len(stream) == 2
    assert all(0 < seconds < 1 for seconds in echo + stream)


def test_a_link_is_compared_with_plain_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_online, "measure_link", lambda *, echoes, pieces, repetitions: ([9.0] + [3e-4] * 5, [9.0] + [0.5] * 5)
    )
    echo, stream = bench_online.measure_resumable_link(1e-4, 1e9)
    assert (echo.seconds, echo.goal_seconds, echo.limit_seconds) == (3e-4, 2.5e-4, 1e-4)
    assert stream.per_second == 2000 * 240 * 1024 / 0.5
    assert stream.limit_seconds == pytest.approx(0.8 * stream.goal_seconds) == pytest.approx(0.49152)


@pytest.mark.parametrize("name", ["10^5 comparisons, 32 bits", "sort 10^5 values, 32 bits", "median of 30000 values"])
def test_comparisons_are_measured_with_their_material(name: str) -> None:
    (work,) = [one for one in workloads(quick=False) if one.name == name]
    row = measure(replace(work, amount=30), "prss", 1e9, repetitions=1)
    assert (row.name, row.preprocessing, row.amount) == (name, "prss", 30)
    assert row.rounds > 3
    assert row.limit_seconds > 0


@pytest.mark.parametrize("analysis", analyses(10**7), ids=lambda one: one.name.split(",")[0])
def test_analyses_of_many_rows_are_measured(analysis: Any) -> None:
    row = measure_rows(analysis, "prss", 2000, repetitions=1)
    assert (row.amount, row.unit, row.goal_seconds) == (6000, "row", 9.0)
    assert analysis.name.endswith("10^7 rows a party")
    assert row.ratio == row.seconds / row.limit_seconds > 0
    assert row.bytes_per_party > 0
    assert 0 <= row.beside_bytes < 2**26


def test_a_figure_of_memory() -> None:
    held = memory("VmRSS")
    assert held == 0 or 2**20 < held <= memory("VmHWM")
    assert memory("no such field") == 0


def test_rows_are_chosen_by_parts_of_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"echo_seconds": 1e-4, "stream_bytes_per_second": 1e9}
    names = [name for name, _ in plan(limits)]
    assert len(names) == len(set(names)) > 30
    assert [name for name in names if chosen(name, ["SORT"])] == [
        "sort 10^5 values, 32 bits (prss)",
        "sort 10^5 values, 32 bits (dealer)",
    ]
    assert all(chosen(name, []) for name in names)
    assert sum(chosen(name, ["median", "rows a party"]) for name in names) == 10
    assert main(only=["no such row"]) == 1
    assert "sort 10^5 values" in capsys.readouterr().out.replace("\n", " ")


def test_only_chosen_rows_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = Row("one round", "-", 1, "round", 1.0, 0.5, (0.5,), 2.0, 10, 1, 0, 0.25, 2.0, 2**20)
    ran: list[str] = []
    lacking = ImportError("no scikit-learn", name="sklearn")

    def lacks() -> Row:
        raise lacking

    def runs(name: str) -> list[Row]:
        ran.append(name)
        return [row, row]

    monkeypatch.setattr(bench, "measure_limits", lambda: {"echo_seconds": 1e-4, "stream_bytes_per_second": 1e9})
    monkeypatch.setattr(
        bench,
        "plan",
        lambda limits, **options: [("a b", partial(runs, "a b")), ("c", partial(runs, "c")), ("a d", lacks)],
    )
    file = tmp_path / "figures.json"
    assert main(only=["a"], json_file=str(file)) == 0
    assert ran == ["a b"]
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert [one["beside_bytes"] for one in figures["rows"]] == [2**20, 2**20]


def test_median() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
