"""The two brokers, started once for all tests of this directory."""

from collections.abc import Iterator

import pytest

from integration.differential.brokers import Address, Missing, both


@pytest.fixture(scope="package")
def brokers() -> Iterator[tuple[Address, list[Address]]]:
    """Where RabbitMQ and each node of Warren listen."""
    try:
        with both() as hosts:
            yield hosts
    except Missing as error:
        pytest.skip(str(error))
