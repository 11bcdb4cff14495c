"""A house for each test, and one for those that share."""

import pytest

from tests.e2e.harness import House


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("shared"))
    yield house
    house.close()
