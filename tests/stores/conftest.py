"""One server of each engine for all tests of a worker process."""

from collections.abc import Iterator

import pytest
from stores.redis_server import Redis

from signer.stores.opening import create_list


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis"), "appendonly yes") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Of an empty list."""
    redis_server.call("FLUSHALL")
    create_list(redis_server.url)
    return redis_server.url
