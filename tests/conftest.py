"""One seed for the whole run: printed on top, repeated when a test fails, set again with ``--seed``.

The toolkit itself draws from ``secrets``; what is seeded here is the data that tests make up.
"""

import gc
import hashlib
import os
import secrets
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

SEED = pytest.StashKey[int]()
# The processes that share the tests out take a file at a time; begun late, one of these would have the others wait.
# Those that start nodes alternate with those that compute. From test_faults to test_hostile_files all attack one
# consortium, which stays up from one file to the next.
LONGEST = (
    "consortium/test_example.py",
    "consortium/test_trials.py",
    "protocols/edges/test_answers.py",
    "consortium/test_three_hospitals.py",
    "protocols/test_logistic.py",
    "consortium/test_relay.py",
    "protocols/test_cox.py",
    "consortium/test_soak.py",
    "protocols/test_poisson.py",
    "consortium/test_faults.py",
    "consortium/test_strangers.py",
    "consortium/test_liars.py",
    "consortium/test_starts.py",
    "consortium/test_hostile_files.py",
    "test_examples.py",
    "node/test_worker.py",
    "mpc/test_privacy.py",
    "test_repository.py",
    "parties/test_resume.py",
    "parties/test_resume_study.py",
    "node/test_worker_hostile.py",
    "node/test_service_pins.py",
    "node/test_material.py",
    "node/test_commands.py",
    "node/test_kills.py",
    "parties/test_faults.py",
    "parties/test_mesh.py",
    "protocols/test_quantiles.py",
    "mpc/test_logic.py",
    "test_architecture.py",
)

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
    # The system's authorities vouch for nobody here, and each process would take a twentieth of a second to load them.
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(config.stash[SEED])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are processors: many tests wait, for a process to start or a patience to end."""
    here = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(here) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["seed"] = node.config.stash[SEED]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests are shared out, begin with the files that take longest."""
    if hasattr(config, "workerinput"):
        rank = {str(Path(__file__).parent / name): number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(str(item.path), len(LONGEST)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector, which would look at all of it again and again, need not."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    from mpc import F127

    return f"seed: {config.stash[SEED]} (repeat with --seed {config.stash[SEED]}), kernels: {F127.backend}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("Seed", f"repeat with --seed {item.config.stash[SEED]}"))
    return report


class QuickBase:
    """Stands in for :mod:`mpc.ot.base` in one process: keys follow from the session's name, so they are no secret.

    A pair's base transfers take 0.1 s of public-key operations. ``tests/ot`` makes them, and so does every run in
    processes.
    """

    @staticmethod
    async def send(link: Any, count: int) -> Any:
        await link.send("points", b"")
        await link.receive("pairs", 0)
        return QuickBase._keys(link, count)

    @staticmethod
    async def receive(link: Any, choices: Any) -> Any:
        await link.send("pairs", b"")
        await link.receive("points", 0)
        return QuickBase._keys(link, len(choices))[np.arange(len(choices)), choices]

    @staticmethod
    def _keys(link: Any, count: int) -> Any:
        expanded = hashlib.shake_128(link.session).digest(count * 2 * 16)
        return np.frombuffer(expanded, np.uint8).reshape(count, 2, 16)


@pytest.fixture
def real_base() -> None:
    """Let a test make its base transfers."""


@pytest.fixture(autouse=True)
def quick_base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs in this process do without public-key operations."""
    if "/tests/ot/" not in request.path.as_posix() and "real_base" not in request.fixturenames:
        monkeypatch.setattr("mpc.ot.meeting.base", QuickBase)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Made from the run's seed and the test's name: alone or among others, a test sees the same numbers."""
    return zlib.crc32(f"{request.config.stash[SEED]} {request.node.nodeid}".encode())


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
