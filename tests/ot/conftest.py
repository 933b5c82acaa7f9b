import pytest

from mpc.ot._native import TWIN, Loops, compiled


@pytest.fixture(params=["c", "numpy"])
def on(request: pytest.FixtureRequest) -> Loops:
    """The C loops and their twin."""
    found = compiled() if request.param == "c" else TWIN
    if found is None:
        pytest.skip("the C loops were not built")
    return found
