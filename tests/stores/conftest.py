"""Servers that lists live on."""

from collections.abc import Iterator

import pytest
from postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, for tests that leave it running."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A database on it, without a list."""
    postgres.sql("DROP SCHEMA IF EXISTS signer CASCADE")
    return postgres.url
