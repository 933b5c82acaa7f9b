import pytest

from mpc.field import Field
from tests.fields.reference import LARGE_PRIMES, SMALL_PRIMES, field_on

BACKENDS = [(p, backend) for p in LARGE_PRIMES for backend in ("c", "numpy")]


def _field(request: pytest.FixtureRequest) -> Field:
    field = field_on(*request.param)
    if field is None:
        pytest.skip("the C kernels were not built")
    return field


def _name(parameters: tuple[int, str]) -> str:
    return f"{Field(parameters[0])}-{parameters[1]}"


@pytest.fixture(scope="session", params=[*BACKENDS, *((p, "numpy") for p in SMALL_PRIMES)], ids=_name)
def field(request: pytest.FixtureRequest) -> Field:
    """Every field on every backend it has."""
    return _field(request)


@pytest.fixture(scope="session", params=BACKENDS, ids=_name)
def large(request: pytest.FixtureRequest) -> Field:
    """F61 and F127, on both backends."""
    return _field(request)
