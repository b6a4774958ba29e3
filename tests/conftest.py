"""Fixtures that many tests use."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults import table
from hypothesis import HealthCheck, settings
from support.clock import Clock
from support.postgres import Postgres
from support.redis_server import Redis
from support.service import KEY, Service, client

from signer import Signer, Store, open_store
from signer.stores.opening import create_list

SCOPES = "token:issue token:introspect token:revoke token:purge read write"


# No deadline: how long an example takes depends on the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

#: Fixtures of the tests that break clusters under load, or open pages in a browser.
SLOW = {"during", "chromium"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests by the fixtures that they use: gateways, machines, and Valkey, which behaves as Redis
    does. Other slow tests mark themselves."""
    for item in items:
        is_deployed = "deploy" in item.path.parts
        ways = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if is_deployed or "valkey" in ways or SLOW.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_list() -> Iterator[Callable[[str], Store]]:
    """open_store, for lists that are closed at the end of the test."""
    with ExitStack() as stack:

        def opened(url: str) -> Store:
            store = open_store(url)
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def store(tmp_path: Path, open_list: Callable[[str], Store]) -> Store:
    return open_list(f"sqlite:///{tmp_path}/list.db")


@pytest.fixture
def signer(store: Store, clock: Clock) -> Signer:
    return Signer(KEY, store, clock=clock)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service and a credential for everything."""
    directory = tmp_path_factory.mktemp("production")
    with Service(directory, {"SECRET_KEY": KEY}, credential=client("tests", SCOPES)) as running:
        yield running


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that starts without any configuration."""
    with Service(tmp_path_factory.mktemp("development")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, for tests that do not stop it."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of a database on it, without a list."""
    postgres.sql("DROP SCHEMA IF EXISTS signer CASCADE")
    return postgres.url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis server, for tests that do not stop it."""
    with Redis(tmp_path_factory.mktemp("redis"), "appendonly yes") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of an empty list on it."""
    redis_server.call("FLUSHALL")
    create_list(redis_server.url)
    return redis_server.url


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Valkey server, for tests that do not stop it."""
    program = os.environ.get("SIGNER_VALKEY", "valkey-server")
    with Redis(tmp_path_factory.mktemp("valkey"), "appendonly yes", program=program) as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: Redis) -> str:
    """The URL of an empty list on it."""
    valkey_server.call("FLUSHALL")
    create_list(valkey_server.url)
    return valkey_server.url


@pytest.fixture(params=["postgres", "redis", "valkey"])
def engine_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty list, on each engine that machines can share."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of faults, in the process that ends the run."""
    table.write(terminalreporter)
