"""What a coalition sees, exactly: in tiny fields every choice of the unknown randomness is tried."""

import importlib
import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from mpc import GF, Field, Party, Share, arithmetic, mask, matmul, multiply, open_, opening, prepare, sigmoid, truncate
from mpc.comparison import bits_to_field, is_negative
from mpc.preprocessing import requests
from mpc.preprocessing.prss import Layout
from mpc.words import W64, pack_bits
from tests.mpc.enumeration import Lab, distance, views
from tests.mpc.support import Message, run

F3, F5, F7 = GF(3), GF(5), GF(7)

# Parties, preprocessing, who colludes: all but one with a dealer, a minority with prss.
SEATS: list[tuple[int, str, set[int]]] = [
    (2, "dealer", {0}),
    (2, "dealer", {1}),
    (3, "dealer", {0}),
    (3, "dealer", {2}),
    (3, "dealer", {0, 1}),
    (3, "dealer", {0, 2}),
    (3, "dealer", {1, 2}),
    (3, "prss", {0}),
    (3, "prss", {1}),
    (3, "prss", {2}),
]
# So many unknown draws that the field must be the smallest one.
LARGER_SEATS: list[tuple[int, str, set[int]]] = [
    (4, "prss", {0}),
    (4, "prss", {3}),
    (5, "prss", {0, 1}),
    (5, "prss", {2, 4}),
]
BITS = "carry|convert|generate"


def names(seats: list[tuple[int, str, set[int]]]) -> list[str]:
    return [f"{n} {name}, {'+'.join(map(str, sorted(coalition)))}" for n, name, coalition in seats]


def seats(which: list[tuple[int, str, set[int]]]) -> Any:
    return pytest.mark.parametrize(("parties", "preprocessing", "coalition"), which, ids=names(which))


def honest(parties: int, coalition: set[int]) -> list[int]:
    return [rank for rank in range(parties) if rank not in coalition]


async def secret_of(
    party: Party, owner: int, value: int, lanes: int, field: Field, shape: tuple[int, ...] = ()
) -> Share:
    """Share one number in all lanes, under a bound of 1 that leaves room in the tiny field."""
    values = np.full((lanes, *shape), value) if party.rank == owner else None
    x: Share = await party.share(values, bound=field.half, owner=owner, shape=(lanes, *shape), field=field)
    return x.bounded_by(1)


def unbounded(x: Share) -> Share:
    """The same share, so that opening it finds any value of the field within its bound."""
    return Share(x.field, x.values, x.scale, x.field.half, leads=x.leads)


def no_difference(protocol: Any, secrets: Any, **options: Any) -> None:
    for row in views(protocol, secrets, **options):
        for view, secret in zip(row, secrets, strict=True):
            assert view.same_as(row[0]), f"{secret} looks different from {secrets[0]}"


def everything(field: Field, count: int) -> list[tuple[int, ...]]:
    return list(product(range(-field.half, field.half + 1), repeat=count))


@pytest.fixture(autouse=True)
def lanes_go_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lanes there are, an opening is a broadcast, as it is for each of them alone."""
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 1 << 30)
    monkeypatch.setattr(opening, "CHUNK_BYTES", 1 << 30)
    monkeypatch.setattr(requests, "CHUNK_BYTES", 1 << 30)


# ---- products ---------------------------------------------------------------------------------------------------


def product_of(owners: list[int], field: Field, *, reveal: bool = False) -> Any:
    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owners[0], secret[0], lanes, field)
        y = await secret_of(party, owners[-1], secret[1], lanes, field)
        z = await multiply(party, x, y)
        if reveal:
            await open_(party, unbounded(z))

    return protocol


@seats(SEATS)
def test_multiply_tells_nothing(parties: int, preprocessing: str, coalition: set[int]) -> None:
    owners = honest(parties, coalition)
    for field in [F5, F7] if len(owners) == 1 else [F5]:
        no_difference(
            product_of(owners, field),
            everything(field, 2),
            coalition=coalition,
            parties=parties,
            preprocessing=preprocessing,
            field=field,
        )


@seats(LARGER_SEATS)
def test_multiply_tells_nothing_to_larger_coalitions(parties: int, preprocessing: str, coalition: set[int]) -> None:
    protocol = product_of(honest(parties, coalition), F3)
    no_difference(
        protocol, everything(F3, 2), coalition=coalition, parties=parties, preprocessing=preprocessing, field=F3
    )


@seats([*SEATS, (4, "prss", {1})])
def test_an_opened_product_tells_only_itself(parties: int, preprocessing: str, coalition: set[int]) -> None:
    field = F5 if parties < 3 else F3
    protocol = product_of(honest(parties, coalition), field, reveal=True)
    for result in range(field.modulus if parties < 4 else 1):
        secrets = [xy for xy in everything(field, 2) if xy[0] * xy[1] % field.modulus == result]
        no_difference(
            protocol,
            secrets[: 9 - parties],
            coalition=coalition,
            parties=parties,
            preprocessing=preprocessing,
            field=field,
            fixings=2 if parties < 4 else 1,
        )


@seats(SEATS)
def test_a_square_and_its_root_are_masked_once(parties: int, preprocessing: str, coalition: set[int]) -> None:
    owner = honest(parties, coalition)[0]

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        x = await secret_of(party, owner, secret, lanes, F5)
        await multiply(party, x, x)

    no_difference(protocol, range(-2, 3), coalition=coalition, parties=parties, preprocessing=preprocessing, field=F5)


@seats(SEATS)
def test_matmul_tells_nothing(parties: int, preprocessing: str, coalition: set[int]) -> None:
    field = F5 if len(honest(parties, coalition)) == 1 else F3
    owner = honest(parties, coalition)[0]

    async def protocol(party: Party, lanes: int, secret: tuple[int, ...]) -> None:
        both = np.tile(np.array(secret), (lanes, 1)) if party.rank == owner else None
        xy = await party.share(both, bound=field.half, owner=owner, shape=(lanes, 4), field=field)
        x, y = xy[:, :2].reshape(-1, 1, 2), xy[:, 2:].reshape(-1, 2, 1)
        # Of two terms; the bound is a promise that is not kept, which is nobody's business here.
        await matmul(party, x.bounded_by(1), y.bounded_by(0))

    secrets = [(0, 0, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1), (1, -1, 1, 1), (0, 1, 0, -1), (field.half, 1, -field.half, 1)]
    no_difference(
        protocol,
        secrets,
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        fixings=1,
        blocks={"matmul": (2, 2)},
    )


@seats(SEATS)
def test_a_masked_operand_may_be_used_again(parties: int, preprocessing: str, coalition: set[int]) -> None:
    """One opening of x serves two products, and what it is made of by local operations."""
    owners = honest(parties, coalition)
    field = F5 if len(owners) == 1 else F3

    async def protocol(party: Party, lanes: int, secret: tuple[int, int, int]) -> None:
        x, y, z = [await secret_of(party, owners[k % len(owners)], v, lanes, field) for k, v in enumerate(secret)]
        kept = await mask(party, x)
        await multiply(party, kept, y)
        await multiply(party, z, (-kept + 0).bounded_by(1).reshape(lanes, 1).reshape(lanes))

    no_difference(
        protocol,
        everything(field, 3)[:: field.modulus - 1],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        fixings=1,
    )


@seats(SEATS)
def test_preparing_uses_no_mask_twice(parties: int, preprocessing: str, coalition: set[int]) -> None:
    owners = honest(parties, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owners[0], secret[0], lanes, F3)
        y = await secret_of(party, owners[-1], secret[1], lanes, F3)
        await prepare(party, multiply, x, y)
        await multiply(party, x, y)

    no_difference(
        protocol, everything(F3, 2), coalition=coalition, parties=parties, preprocessing=preprocessing, field=F3
    )


# ---- openings and inputs ----------------------------------------------------------------------------------------


@seats([*SEATS, *LARGER_SEATS])
def test_an_opened_sum_tells_only_the_sum(parties: int, preprocessing: str, coalition: set[int]) -> None:
    """Inputs of several honest parties, pads included: the coalition sees their sum, and nothing beside it."""
    owners = honest(parties, coalition)
    field = F5 if parties < 4 else F3

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owners[0], secret[0], lanes, field)
        y = await secret_of(party, owners[-1], secret[1], lanes, field)
        await open_(party, unbounded(x.bounded_by(0) + y))

    known = r"$^" if parties < 4 else r"share\|"
    for total in range(field.modulus):
        secrets = [xy for xy in everything(field, 2) if sum(xy) % field.modulus == total]
        no_difference(
            protocol,
            secrets,
            coalition=coalition,
            parties=parties,
            preprocessing=preprocessing,
            field=field,
            known=known,
        )


def test_only_those_named_see_what_is_opened_to_them() -> None:
    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, 1, secret[0], lanes, F5)
        y = await secret_of(party, 2, secret[1], lanes, F5)
        await open_(party, unbounded(x), unbounded(y), to=[1])

    options: dict[str, Any] = {"parties": 3, "preprocessing": "prss", "field": F5, "known": "$^"}
    for row in views(protocol, everything(F5, 2), coalition={0}, **options):
        assert all(view.same_as(row[0]) and view.messages == 0 for view in row)
    # 1 knows its own x and learns y, and sees no more than that: y comes from 2, the summand of 0 is random.
    for y in range(-2, 3):
        for row in views(protocol, [(x, y) for x in range(-2, 3)], coalition={1}, **options):
            assert all(view.messages == 2 for view in row)


@seats(SEATS)
def test_sharing_an_input_sends_nothing_but_its_header(parties: int, preprocessing: str, coalition: set[int]) -> None:
    owner = honest(parties, coalition)[0]

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await secret_of(party, owner, secret, lanes, F5)

    for row in views(
        protocol, range(-2, 3), coalition=coalition, parties=parties, preprocessing=preprocessing, field=F5, known="$^"
    ):
        assert all(view.same_as(row[0]) and view.messages == 0 and view.public for view in row)


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_all_summands_but_one_of_an_input_are_uniform(owner: int) -> None:
    """Any two of the three summands take every pair of values equally often, whatever the input is."""

    def shared(value: int, lab: Lab) -> np.ndarray:
        async def program(party: Party, _: Any) -> np.ndarray:
            return (await secret_of(party, owner, value, lab.lanes, F5)).values

        return np.array(run(program, preprocessing="prss", make_source=lab.sources).results)

    for value in range(-2, 3):
        plan = Lab(set(), known="$^")
        shared(value, plan)
        summands = shared(value, Lab(set(), plan.combinations, plan.plan, known="$^"))
        assert (F5.decode(F5.sum(summands, axis=0)) == value).all()
        for pair in ([0, 1], [0, 2], [1, 2]):
            assert len({tuple(column) for column in summands[pair].T.tolist()}) == 25


@pytest.mark.parametrize("coalition", [{0}, {1}, {2}])
def test_large_openings_tell_no_more_than_small_ones(coalition: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each party sums one third of the array; every third is an enumeration of its own."""
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 0)
    owners = honest(3, coalition)

    def execute(lab: Lab, secret: tuple[int, int]) -> list[Message]:
        async def program(party: Party, _: Any) -> None:
            x = await secret_of(party, owners[0], secret[0], 3 * lab.lanes, F5)
            y = await secret_of(party, owners[-1], secret[1], 3 * lab.lanes, F5)
            await open_(party, unbounded(x + y))

        done = run(program, preprocessing="prss", make_source=lab.sources)
        done.results  # noqa: B018 - raises what went wrong
        return sorted(m for m in done.sent_after_inputs() if m.to in coalition)

    def thirds(secret: tuple[int, int]) -> list[Any]:
        plan = Lab(coalition, copies=3, known="$^")
        execute(plan, secret)
        lab = Lab(coalition, plan.combinations, plan.plan, copies=3, fixing=1, known="$^")
        received = execute(lab, secret)
        seen = []
        for chunk in range(3):
            parts = [m for m in received if re.search(rf"\.{chunk}s?$", m.step)]
            assert all(len(m.data) == lab.lanes for m in parts)
            assert len(parts) == (2 if chunk in coalition else 1)  # all summands, or their sum
            code = sum(np.frombuffer(m.data, np.uint8).astype(int) * 5**k for k, m in enumerate(parts))
            seen.append(np.bincount(code, minlength=25).tolist())
        return seen

    for total in range(5):
        assert len({str(thirds((x, y))) for x, y in everything(F5, 2) if (x + y) % 5 == total}) == 1


# ---- what is masked statistically -------------------------------------------------------------------------------


@pytest.fixture(params=[2, 4], ids="sigma={}".format)
def sigma(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    bits: int = request.param
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", bits)
    return bits


def holder(parties: int, preprocessing: str, coalition: set[int]) -> int:
    """An honest party whose summand of a mask has a piece in it that the coalition does not know.

    Its summand hides a secret even if all zero-sharings are known, so that they need not be enumerated.
    """
    for rank in honest(parties, coalition):
        layout = Layout(rank, parties)
        if preprocessing == "dealer" or any(not coalition & set(layout.known[k]) for k in layout.held):
            return rank
    raise AssertionError("somebody honest holds every piece that the coalition does not know")


ZEROS_KNOWN = r"share\||zero\|"


@seats([*SEATS, (5, "prss", {0, 1}), (5, "prss", {1, 3})])
def test_truncation_keeps_its_statistical_distance(
    parties: int, preprocessing: str, coalition: set[int], sigma: int
) -> None:
    field = GF(8191)
    owner = holder(parties, preprocessing, coalition)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == owner else None
        x = await party.share(values, bound=3, owner=owner, shape=(lanes,), field=field)
        y = await truncate(party, x.scaled_down(1), to=0)
        assert y.masked is not None

    apart = distance(
        protocol,
        range(-3, 4),
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        known=ZEROS_KNOWN,
    )
    assert 0 < apart <= 2**-sigma
    # |x - x'| of the masked values are possible for one of the two only, at either end.
    assert apart == pytest.approx(6 / 2 ** (3 + sigma), rel=1e-9)


def test_zero_sharing_makes_the_summands_of_a_truncation_uniform(sigma: int) -> None:
    """The secret's owner holds no piece that the coalition does not know: only the zero-sharing helps."""
    field = GF(211 if sigma == 2 else 787)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == 0 else None
        x = await party.share(values, bound=3, owner=0, shape=(lanes,), field=field)
        await truncate(party, x.scaled_down(1), to=0)

    options: dict[str, Any] = {"coalition": {1}, "parties": 3, "preprocessing": "prss", "field": field}
    assert 0 < distance(protocol, [-3, 0, 3], **options) <= 2**-sigma
    assert distance(protocol, [-3, 0, 3], known=ZEROS_KNOWN, **options) == pytest.approx(1)


@seats([seat for seat in SEATS if seat[1] == "prss" or len(seat[2]) == seat[0] - 1])
def test_a_product_of_truncated_values_keeps_it_too(
    parties: int, preprocessing: str, coalition: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Born masked: the product opens nothing of x, and only uniform numbers of y."""
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)
    field = GF(67 if parties == 2 else 101)
    owner = holder(parties, preprocessing, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owner, secret[0], lanes, field)
        y = await secret_of(party, owner, secret[1], lanes, field)
        await multiply(party, await truncate(party, x.scaled_down(1), to=0), y)

    apart = distance(
        protocol,
        [(-1, 1), (1, 1), (0, -1), (1, -1)],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        known=ZEROS_KNOWN,
        fixings=1,
    )
    assert 0 < apart <= 2**-2


@pytest.mark.parametrize(
    ("parties", "preprocessing", "coalition"),
    [(2, "dealer", {0}), (2, "dealer", {1}), (3, "prss", {0}), (3, "prss", {1}), (3, "prss", {2})],
)
def test_sigmoid_keeps_its_statistical_distance(
    parties: int, preprocessing: str, coalition: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One harmonic, in a field where waves have two fraction bits: the pads of the waves are enumerated, too."""
    sigmoids = importlib.import_module("mpc.sigmoid")
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 1)
    monkeypatch.setattr(sigmoids, "_ANGLE_SCALE", 0)
    monkeypatch.setattr(sigmoids, "WAVE_SCALE", 2)
    monkeypatch.setattr(sigmoids, "series", lambda limit, error: (4, np.array([0.4])))
    field = GF(53)
    owner = holder(parties, preprocessing, coalition)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await sigmoid(party, await secret_of(party, owner, secret, lanes, field), limit=1.0, error=0.09)

    apart = distance(
        protocol,
        [-1, 0, 1],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        known=ZEROS_KNOWN,
        fixings=1,
        blocks={"correction": (2,), "split": (2,)},
    )
    assert apart == pytest.approx(2 / 2**3)


# ---- bits -------------------------------------------------------------------------------------------------------


def words_of(party: Party, bits: dict[int, int], lanes: int) -> Share:
    """An XOR share of one bit in all lanes; each of the named parties holds a bit, the others zeros."""
    held = pack_bits(np.full(lanes, bits.get(party.rank, 0), np.uint8))
    return Share(W64, held, 0, 0, leads=party.rank == 0)


@seats([*SEATS, *LARGER_SEATS])
def test_products_of_bits_tell_nothing(parties: int, preprocessing: str, coalition: set[int]) -> None:
    owners = honest(parties, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x, y = words_of(party, {owners[0]: secret[0]}, lanes), words_of(party, {owners[-1]: secret[1]}, lanes)
        await multiply(party.at("carry"), x, y)

    secrets = list(product((0, 1), repeat=2))
    no_difference(
        protocol,
        secrets,
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=F3,
        packed="carry|correction",
    )


@seats([*SEATS, (4, "prss", {0}), (4, "prss", {3})])
def test_bits_become_elements_in_private(parties: int, preprocessing: str, coalition: set[int]) -> None:
    """The sign's split among three parties (prss), or its correction (dealer), is padded."""
    owners = honest(parties, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        bits = {owners[-1]: secret[1]} | {owners[0]: secret[0]}
        await bits_to_field(party, words_of(party, bits, lanes), F5, lanes)

    secrets = list(product((0, 1), repeat=2))
    no_difference(
        protocol, secrets, coalition=coalition, parties=parties, preprocessing=preprocessing, field=F5, packed=BITS
    )


@pytest.mark.parametrize(
    ("parties", "preprocessing", "coalition", "bound", "modulus"),
    [
        (2, "dealer", {0}, 1, 83),
        (2, "dealer", {1}, 1, 83),
        (2, "dealer", {0}, 3, 157),
        (2, "dealer", {1}, 3, 157),
        (3, "prss", {0}, 1, 127),
        (3, "prss", {1}, 1, 127),
        (3, "prss", {2}, 1, 127),
    ],
)
def test_comparison_keeps_its_statistical_distance(
    parties: int, preprocessing: str, coalition: set[int], bound: int, modulus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first opening to the result: everything that a comparison sends, for values of one and two bits."""
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)
    field = GF(modulus)
    owner = holder(parties, preprocessing, coalition)
    packed = BITS + (r"|correction 0\." if bound == 1 else r"|correction [01]\.")

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == owner else None
        z = await party.share(values, bound=bound, owner=owner, shape=(lanes,), field=field)
        await is_negative(party, z)

    apart = distance(
        protocol,
        [-bound, 0, bound],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=field,
        packed=packed,
        known=r"share\||zero\|compare#0",
        fixings=1,
    )
    assert 0 < apart <= 2**-2


# ---- the dealer itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_the_dealer_receives_nothing_that_depends_on_data(parties: int) -> None:
    async def program(party: Party, value: float) -> None:
        x = await party.share(np.full(5, value), bound=8, owner=0, shape=(5,))
        y = await party.share(np.full(5, int(value)), bound=8, owner=1, shape=(5,))
        z = await truncate(party, (await multiply(party, x, y)).bounded_by(8))
        await open_(party, await sigmoid(party, z), await matmul(party, z, y), await is_negative(party, x))

    def received(value: float) -> list[Any]:
        done = run(program, [value] * parties)
        done.results  # noqa: B018
        return sorted((m.frm, m.step, m.data) for m in done.log if m.to == parties)

    reference = received(0.0)
    assert len(reference) > 5
    assert all(received(value) == reference for value in (1.5, -2.25, 2.75))


# ---- the checker is itself checked ------------------------------------------------------------------------------

SECRETS = everything(F5, 2)


def removed(which: str) -> Any:
    return lambda label, number: -1 if label.startswith(which) else None


def used_twice(which: str) -> Any:
    return lambda label, number: 0 if label.startswith(which) else None


@pytest.mark.parametrize(
    ("sabotage", "parties", "preprocessing", "coalition"),
    [
        (removed("mask|"), 2, "dealer", {0}),
        (removed("mask|"), 3, "dealer", {1, 2}),
        (removed("mask|"), 3, "prss", {1}),
        (used_twice("mask|"), 2, "dealer", {0}),
        (used_twice("mask|"), 3, "dealer", {0, 1}),
        (used_twice("mask|"), 3, "prss", {2}),
        (removed("pad|"), 2, "dealer", {1}),
        (removed("pad|"), 3, "dealer", {0, 2}),
    ],
)
def test_a_product_without_its_masks_is_found_out(
    sabotage: Any, parties: int, preprocessing: str, coalition: set[int]
) -> None:
    protocol = product_of(honest(parties, coalition), F5)
    options: dict[str, Any] = {"coalition": coalition, "parties": parties, "preprocessing": preprocessing, "field": F5}
    assert distance(protocol, SECRETS, **options) == 0
    assert distance(protocol, SECRETS, sabotage=sabotage, **options) > 0.1


def test_a_pad_used_for_two_products_is_found_out() -> None:
    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, 0, secret[0], lanes, F3)
        y = await secret_of(party, 0, secret[1], lanes, F3)
        await multiply(party, x, y)
        await multiply(party, x, y)

    options: dict[str, Any] = {"coalition": {1}, "parties": 2, "preprocessing": "dealer", "field": F3}
    assert distance(protocol, everything(F3, 2), **options) == 0
    assert distance(protocol, everything(F3, 2), sabotage=used_twice("pad|"), **options) > 0.1


@pytest.mark.parametrize("coalition", [{0}, {1}, {2}])
def test_an_opening_without_zero_sharing_is_found_out(coalition: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The product is 0 for all of these; its summands tell more than their sum."""
    protocol = product_of(honest(3, coalition), F5, reveal=True)
    secrets = [xy for xy in SECRETS if xy[0] * xy[1] % 5 == 0]
    options: dict[str, Any] = {"coalition": coalition, "parties": 3, "preprocessing": "prss", "field": F5}
    assert distance(protocol, secrets, **options) == 0
    monkeypatch.setattr(Party, "zero_share", lambda self, field, shape: field.zeros(shape))
    assert distance(protocol, secrets, **options) > 0.1


def test_signs_without_their_pad_are_found_out() -> None:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await bits_to_field(party, words_of(party, {0: secret}, lanes), F5, lanes)

    for parties, preprocessing, coalition, label in [(3, "prss", {2}, "split|"), (2, "dealer", {1}, "pad|")]:
        options: dict[str, Any] = {"coalition": coalition, "parties": parties, "preprocessing": preprocessing}
        assert distance(protocol, (0, 1), field=F5, packed=BITS, **options) == 0
        assert distance(protocol, (0, 1), field=F5, packed=BITS, sabotage=removed(label), **options) > 0.1


def test_a_mask_that_is_too_short_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        x = await secret_of(party, 0, secret, lanes, GF(8191))
        await truncate(party, x.scaled_down(1), to=0)

    options: dict[str, Any] = {"coalition": {1}, "parties": 2, "preprocessing": "dealer", "field": GF(8191)}
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 0)
    assert distance(protocol, (-1, 0, 1), **options) > 2**-4
