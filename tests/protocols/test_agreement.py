"""Agreeing on public parameters: differences are named, a peer's bytes are not trusted."""

from typing import Any

import pytest

from mpc import AgreementError, Party, PeerError
from protocols.agreement import agree
from tests.protocols.helpers import run


def test_counts_of_all_parties_come_back_in_rank_order() -> None:
    async def program(party: Party, rows: int) -> Any:
        declared = await agree(party, "test", {"l2": 1.0, "bound": [1, 2.5], "names": None}, {"rows": rows})
        return declared, party.costs.rounds, party.costs.elements_opened

    results = run(program, [5, 0, 7])
    assert results == [([{"rows": 5}, {"rows": 0}, {"rows": 7}], 1, 0)] * 3


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        ({"l2": 1.0}, {"l2": 2.0}, "party 1 says l2 = 2.0, party 0 says l2 = 1.0"),
        ({"l2": 1.0}, {"solver": "newton"}, "party 1 says l2 = nothing"),
        ({"names": ["a"]}, {"names": ["b"]}, "names = "),
        ({"l2": "x"}, {"l2": "\n\x1b[31m" + "y" * 500}, r"l2 = '\\n\\x1b\[31my+\.\.\.,"),
    ],
)
def test_the_parameter_that_differs_is_named(ours: dict[str, Any], theirs: dict[str, Any], text: str) -> None:
    async def program(party: Party, terms: dict[str, Any]) -> None:
        await agree(party, "test", terms)

    async def first_error(party: Party, terms: dict[str, Any]) -> str:
        try:
            await program(party, terms)
        except AgreementError as error:
            return str(error)
        return ""

    messages = run(first_error, [ours, theirs])
    with pytest.raises(AgreementError, match=text):
        raise AgreementError(messages[0])
    assert messages[1] or theirs.keys() != ours.keys()
    assert all(message.isprintable() for message in messages)


def test_different_protocols_do_not_meet() -> None:
    async def program(party: Party, name: str) -> None:
        await agree(party, name, {})

    with pytest.raises(AgreementError, match=r"protocol = '(sum|mean)'"):
        run(program, ["sum", "mean"])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"nonsense",
        b"[1,2]",
        b"[{},{}",
        b'[{"protocol":"test"},{"rows":-1}]',
        b'[{"protocol":"test"},{"rows":1.5}]',
        b'[{"protocol":"test"},{"columns":1}]',
        b"[" * 200_000,
        b"\xff\xfe",
    ],
)
def test_a_peer_that_sends_no_terms_is_named(message: bytes) -> None:
    async def program(party: Party, honest: bool) -> None:
        if honest:
            await agree(party, "test", {}, {"rows": 1})
            return
        scope = party.at("agree")
        step = scope.next_step("terms")
        for other in party.others:
            await scope.send(other, step, message, scope.cost_of("terms"))
            await party.transport.receive_upto(other, step, 1000)

    with pytest.raises(PeerError) as caught:
        run(program, [True, False])
    assert caught.value.rank == 1


def test_terms_have_a_limit() -> None:
    async def program(party: Party, _: None) -> None:
        await agree(party, "test", {"names": ["x" * 1000] * 300})

    with pytest.raises(ValueError, match="bytes"):
        run(program, [None, None])
