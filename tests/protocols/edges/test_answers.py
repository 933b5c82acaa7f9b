"""Data at every edge, in small tables that Hypothesis draws: the reference's answer, a reason, or a clear error."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.protocols.edges.cases import CASES
from tests.protocols.edges.running import check_world
from tests.protocols.edges.tables import edges_of, worlds

# In the profile "quick" 1 example of each analysis at each edge; where a run takes long, at one of two edges, which
# the seed chooses, as it chooses one of eight sets of tables: a change is held against tables that are known to pass.
# In "thorough" 80, and 40, which nobody has seen before.
_EXAMPLES = settings().max_examples
_SETS = 8


def _pairs() -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for name, case in CASES.items():
        edges = edges_of(case.columns, gaps=case.gaps)
        together = 2 if case.slow else 1
        found += [(name, tuple(edges[k : k + together])) for k in range(0, len(edges), together)]
    return found


_PAIRS = _pairs()


@pytest.mark.parametrize(("name", "edges"), _PAIRS, ids=[f"{name}: {' or '.join(edges)}" for name, edges in _PAIRS])
def test_an_analysis_at_an_edge(name: str, edges: tuple[str, ...], seed: int) -> None:
    case = CASES[name]
    most = 20 if case.slow else 40
    start = seed % _SETS if _EXAMPLES <= 50 else seed

    # A run of all parties takes too long for a search for the smallest table; those here are small anyway.
    @settings(
        max_examples=1 if _EXAMPLES <= 50 else _EXAMPLES // (50 if case.slow else 25),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def held_against_the_reference(data: st.DataObject) -> None:
        edge = edges[(data.draw(st.integers(0, len(edges) - 1)) + start) % len(edges)]
        world = worlds(case.columns, edge, case.partitions, start=start, most=most, few_columns=case.all_hold)
        check_world(case, data.draw(world))

    held_against_the_reference()
