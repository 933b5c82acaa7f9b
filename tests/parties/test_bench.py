"""The benchmark measures what it says; how fast is not for tests to judge."""

import io

import pytest
from rich.console import Console

from mpc import F61, multiply
from parties import bench
from parties.bench import Row, measure, measure_material, table
from parties.bench_limits import fastest_of, measure_limits, median
from parties.bench_links import measure_link
from parties.bench_work import Work, vectors, workloads


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
        bench, "measure_link", lambda *, echoes, pieces, repetitions: ([9.0] + [3e-4] * 5, [9.0] + [0.5] * 5)
    )
    echo, stream = bench.measure_resumable_link(1e-4, 1e9)
    assert (echo.seconds, echo.goal_seconds, echo.limit_seconds) == (3e-4, 2.5e-4, 1e-4)
    assert stream.per_second == 2000 * 240 * 1024 / 0.5
    assert stream.limit_seconds == pytest.approx(0.8 * stream.goal_seconds) == pytest.approx(0.49152)


def test_median() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
