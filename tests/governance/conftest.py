"""One world for all tests here: nothing in it changes."""

import pytest

from parties.governance.studies import Study, parse_study
from tests.governance.world import STUDY, World, make_world


@pytest.fixture(scope="package")
def world() -> World:
    return make_world()


@pytest.fixture(scope="package")
def study() -> Study:
    return parse_study(STUDY)
