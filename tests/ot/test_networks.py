"""Permutation networks: every permutation, any number of rows, both ways of routing."""

from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.ot import networks
from mpc.ot.networks import Layer, layout, pass_through, route, switch_count, walk

Route = Callable[[Any], np.ndarray]


def route_by_numpy(permutation: Any) -> np.ndarray:
    found = networks._compiled
    networks._compiled = lambda: None
    try:
        return route(permutation)
    finally:
        networks._compiled = found


@pytest.fixture(params=["c", "numpy"])
def routing(request: pytest.FixtureRequest) -> Route:
    if request.param == "c" and networks._compiled() is None:
        pytest.skip("the C loops were not built")
    return route if request.param == "c" else route_by_numpy


def out_of(bits: np.ndarray, rows: int) -> list[int]:
    return list(pass_through(layout(rows), bits, np.arange(rows)))


# ---- the network ------------------------------------------------------------------------------------------------


def test_switches_are_as_many_as_waksman_says() -> None:
    expected = 0
    for rows in range(1, 300):
        expected += (rows - 1).bit_length()
        network = layout(rows)
        assert network.switches == switch_count(rows) == expected
        assert len(network.layers) == max(0, 2 * (rows - 1).bit_length() - 1)
        assert all(layer.switches for layer in network.layers)
    assert switch_count(100_000) == 1_568_929


def test_small_networks_by_hand() -> None:
    assert layout(1).layers == ()
    assert layout(2).layers == (Layer(1, 1),)
    assert layout(3).layers == (Layer(1, 1), Layer(2, 1), Layer(1, 1))
    assert layout(4).layers == (Layer(1, 2), Layer(2, 2), Layer(1, 1))
    assert layout(5).layers == (Layer(1, 2), Layer(2, 2), Layer(4, 1), Layer(2, 1), Layer(1, 2))
    assert Layer(2, 5).pairs().tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10]]


@given(st.integers(1, 200))
def test_wires_of_a_layer_are_disjoint_and_inside(rows: int) -> None:
    for layer in layout(rows).layers:
        wires = layer.pairs().reshape(-1)
        assert len(set(wires.tolist())) == wires.size
        assert wires.size == 0 or (wires.min() >= 0 and wires.max() < rows)


@given(st.data(), st.integers(1, 100))
def test_walking_meets_every_switch_once_in_order(data: st.DataObject, rows: int) -> None:
    network = layout(rows)
    cuts = data.draw(st.lists(st.integers(0, network.switches), max_size=4))
    edges = [0, *sorted(cuts), network.switches]
    wires = np.arange(rows).reshape(-1, 1)
    met: list[tuple[int, int]] = []
    for start, stop in pairwise(edges):
        for some in walk(network, wires, start, stop):
            assert some.switches.start == len(met)
            assert np.shares_memory(some.lower, wires)
            assert np.shares_memory(some.upper, wires)
            met += zip(some.lower.reshape(-1).tolist(), some.upper.reshape(-1).tolist(), strict=True)
            assert some.switches.stop == len(met)
    assert met == [tuple(pair) for layer in network.layers for pair in layer.pairs().tolist()]


@pytest.mark.parametrize("rows", [0, -1, networks.MOST_ROWS + 1])
def test_numbers_of_rows_that_have_no_network(rows: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        layout(rows)


# ---- routing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", range(1, 7))
def test_all_permutations_of_few_rows(routing: Route, rows: int) -> None:
    for permutation in permutations(range(rows)):
        assert out_of(routing(np.array(permutation)), rows) == list(permutation)


@given(st.integers(1, 300).flatmap(lambda rows: st.permutations(range(rows))))
def test_permutations_of_more_rows(permutation: list[int]) -> None:
    bits = route(np.array(permutation))
    assert out_of(bits, len(permutation)) == permutation
    # Where there is a choice, both ways of routing make the same.
    np.testing.assert_array_equal(bits, route_by_numpy(np.array(permutation)))


@pytest.mark.parametrize("rows", [63, 64, 65, 1000, 4097, 20_000])
def test_permutations_of_many_rows(routing: Route, rows: int, rng: np.random.Generator) -> None:
    for permutation in (rng.permutation(rows), np.arange(rows), np.arange(rows)[::-1], np.roll(np.arange(rows), 1)):
        np.testing.assert_array_equal(pass_through(layout(rows), routing(permutation), np.arange(rows)), permutation)


def test_bits_are_bits_for_all_switches(routing: Route, rng: np.random.Generator) -> None:
    bits = routing(rng.permutation(1001))
    assert bits.dtype == np.uint8
    assert bits.shape == (switch_count(1001),)
    assert set(bits.tolist()) == {0, 1}


def test_the_identity_crosses_nothing(routing: Route) -> None:
    for rows in range(1, 40):
        assert not routing(np.arange(rows)).any()


@pytest.mark.parametrize("wrong", [[0, 0], [1, 2], [-1, 0], [0, 1, 3], [2, 2, 0], [0, 1 << 32], [1 << 32, 1]])
def test_what_is_no_permutation_is_refused(routing: Route, wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="not a permutation"):
        routing(np.array(wrong))
    with pytest.raises(ValueError, match="rows"):
        routing(np.zeros(0, np.intp))


def test_rows_of_any_shape_and_type_pass() -> None:
    permutation = np.array([3, 0, 2, 4, 1])
    rows = np.arange(30.0).reshape(5, 2, 3)
    kept = rows.copy()
    bits = route(permutation)
    np.testing.assert_array_equal(pass_through(layout(5), bits, rows), rows[permutation])
    np.testing.assert_array_equal(pass_through(layout(5), bits, rows[:, ::-1, 1]), rows[permutation][:, ::-1, 1])
    np.testing.assert_array_equal(rows, kept)
