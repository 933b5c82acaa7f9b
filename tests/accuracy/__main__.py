"""All comparisons with references: ``scripts/accuracy`` runs this."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.accuracy.cases import Case
from tests.accuracy.catalogue import all_cases
from tests.accuracy.page import Line, line, page

PAGE = Path(__file__).parent.parent.parent / "docs" / "accuracy.md"


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; 0 if all errors are within their bounds."""
    parser = argparse.ArgumentParser(prog="scripts/accuracy", description="Compare with statisticians' libraries.")
    parser.add_argument("words", nargs="*", help="only cases whose name holds one of these; then no page is written")
    parser.add_argument("--quick", action="store_true", help="what the tests run; no page is written")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page goes (default: docs/accuracy.md)")
    given = parser.parse_args(arguments)
    chosen = [case for case in all_cases() if _wanted(case, given.words, given.quick)]
    lines: list[Line] = []
    failed = []
    for case in chosen:
        try:
            lines += compare(case)
        except Exception as error:  # noqa: BLE001 - the others are of interest all the same
            failed.append(case.name)
            say(f"{case.name} failed: {type(error).__name__}: {error}")
    beyond = [one for one in lines if not one.holds]
    say(f"{len(lines)} figures of {len(chosen)} analyses, {len(beyond)} beyond their bounds")
    if failed:
        say(f"failed: {'; '.join(failed)}")
    elif not (given.words or given.quick):
        given.page.write_text(page(lines), "utf-8")
        say(f"wrote {given.page}")
    return 1 if beyond or failed or not lines else 0


def compare(case: Case) -> list[Line]:
    """Run one comparison and say how it went."""
    began = time.perf_counter()
    lines = [line(case, figure) for figure in case.run()]
    say(f"{case.name} ({time.perf_counter() - began:.1f} s)")
    for one in lines:
        mark = "" if one.holds else "  <-- beyond the bound"
        say(
            f"  {one.figure.name}: {one.reference:.10g}, ours {one.ours:.10g}, error {one.error:.1e} of "
            f"{one.figure.bound:.0e}{mark}"
        )
    return lines


def _wanted(case: Case, words: Sequence[str], quick: bool) -> bool:
    return (case.quick or not quick) and (not words or any(word in case.name for word in words))


if __name__ == "__main__":
    raise SystemExit(main())
