"""All comparisons."""

from __future__ import annotations

from tests.accuracy import columns, counts, means, quality, ranks, regression, sums, survival
from tests.accuracy.cases import Case

TOPICS = (sums, means, counts, ranks, regression, survival, quality, columns)


def all_cases() -> list[Case]:
    """Return the comparisons, in the order of the page."""
    return [case for topic in TOPICS for case in topic.cases()]
