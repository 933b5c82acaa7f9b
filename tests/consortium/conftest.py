"""Consortia of real nodes are for Linux: they look into /proc for what was left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from parties.governance.studies import Study
from tests.consortium.leftovers import left_behind
from tests.consortium.nodes import Consortium, Node, eventually
from tests.consortium.rogue import Member
from tests.consortium.studies import LONG, MEAN, give_rows
from tests.consortium.trials import propose

HERE = Path(__file__).parent
VILLAIN = "villain"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if Path("/proc/self/fd").is_dir():
        return
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.skip(reason="this system has no /proc to see what a node leaves behind"))


@dataclass
class Attacked:
    """Three members whose nodes run, and a fourth that attacks them: with a good key, and without a node."""

    consortium: Consortium
    villain: Member

    def others_there(self, node: Node) -> bool:
        """Whether a node has its links to the other honest ones."""
        try:
            peers = node.ask("/status")["peers"]
        except OSError:  # it is being started
            return False
        return all(peer["connected"] for peer in peers if peer["name"] != VILLAIN)

    def wait(self) -> None:
        """Wait until all honest nodes see each other."""
        for node in self.consortium:

            def there(node: Node = node) -> bool:
                return self.others_there(node)

            eventually(there, f"{node.name} sees the others")


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    consortium = Consortium.found(folder, ("north", "city", "south", VILLAIN), dealer=None)
    give_rows(consortium, np.random.default_rng(1), (20, 20, 20, 20))
    found = Attacked(consortium, Member(consortium.nodes.pop(VILLAIN)))
    try:
        for node in consortium:
            node.sections.append(("[policy]", {"protocols": ["mean", "sum", "logistic_regression"]}))
            node.write_config()
            node.start()
        found.wait()
        yield found
        consortium.stop()
    finally:
        for node in consortium:
            node.kill()
    assert left_behind(folder, consortium.ports) == []


@pytest.fixture
def consortium(attacked: Attacked) -> Consortium:
    return attacked.consortium


@pytest.fixture
def villain(attacked: Attacked) -> Member:
    return attacked.villain


@pytest.fixture
def north(attacked: Attacked) -> Iterator[Node]:
    """A node under attack: afterwards it is what it was before."""
    node = attacked.consortium["north"]
    process = node.pid
    yield node
    assert node.process is not None
    assert node.process.poll() is None
    assert node.pid == process
    attacked.wait()
    assert "Traceback" not in node.said(), node.said()


@pytest.fixture(scope="package")
def approved(attacked: Attacked) -> Study:
    """A study that all three have approved."""
    return propose(attacked.consortium, "an honest study", "north", [MEAN, LONG])
