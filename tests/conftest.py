"""One seed for the whole run: printed on top, repeated when a test fails, set again with ``--seed``.

The toolkit itself draws from ``secrets``; what is seeded here is the data that tests make up.
"""

import secrets
import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

SEED = pytest.StashKey[int]()

# On machines of two busy cores a deadline measures the neighbours.
settings.register_profile("quick", deadline=None, derandomize=False, print_blob=True, max_examples=50)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2000)
settings.load_profile("quick")  # pytest --hypothesis-profile=thorough


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="repeat a run: the seed that it printed on top")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--seed")
    # The processes among which the tests are shared out have the seed of the one that shares them out.
    seed = getattr(config, "workerinput", {}).get("seed", seed)
    config.stash[SEED] = secrets.randbits(32) if seed is None else seed
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(config.stash[SEED])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["seed"] = node.config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    from mpc import F127

    return f"seed: {config.stash[SEED]} (repeat with --seed {config.stash[SEED]}), kernels: {F127.backend}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("Seed", f"repeat with --seed {item.config.stash[SEED]}"))
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Made from the run's seed and the test's name: alone or among others, a test sees the same numbers."""
    return zlib.crc32(f"{request.config.stash[SEED]} {request.node.nodeid}".encode())


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
