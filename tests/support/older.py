"""Lists that are put back to an older state while services use them, as a wrong restore would."""

import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path

import redis as driver
from support.postgres import Postgres
from support.redis_server import Redis

from signer.stores.opening import create_list


class Past(ABC):
    """The list at `url`, and an older state of it."""

    url: str

    @abstractmethod
    def keep(self) -> None:
        """Remember the present state."""

    @abstractmethod
    def put_back(self) -> None:
        """Restore the state that was remembered."""

    @abstractmethod
    def begin_anew(self) -> None:
        """Replace the list with an empty one."""


class PastFile(Past):
    """For an SQLite file: another file takes its place."""

    def __init__(self, folder: Path) -> None:
        self._path, self._kept = folder / "list.db", folder / "kept.db"
        self.url = f"sqlite:///{self._path}"

    def keep(self) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("VACUUM INTO ?", (str(self._kept),))

    def put_back(self) -> None:
        self._remove()
        shutil.copy(self._kept, self._path)

    def begin_anew(self) -> None:
        self._remove()
        create_list(self.url)

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


class PastTables(Past):
    """For a PostgreSQL server."""

    _TABLES = ("state", "tokens", "groups", "log")

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.url
        server.sql("DROP SCHEMA IF EXISTS signer, kept CASCADE")

    def keep(self) -> None:
        copies = (f"CREATE TABLE kept.{table} AS TABLE signer.{table}" for table in self._TABLES)
        self._server.sql("DROP SCHEMA IF EXISTS kept CASCADE", "CREATE SCHEMA kept", *copies)

    def put_back(self) -> None:
        changes = (
            f"DELETE FROM signer.{table}; INSERT INTO signer.{table} TABLE kept.{table}"
            for table in self._TABLES
        )
        self._server.sql("BEGIN; " + "; ".join(changes) + "; COMMIT")

    def begin_anew(self) -> None:
        self._server.sql("DROP SCHEMA signer CASCADE")
        create_list(self.url)


class PastKeys(Past):
    """For a Redis server."""

    def __init__(self, server: Redis) -> None:
        self._port = server.port
        self._kept: dict[bytes, bytes] = {}
        self.url = server.url
        server.call("FLUSHALL")
        create_list(self.url)

    def keep(self) -> None:
        with driver.Redis(port=self._port) as client:
            self._kept = {key: client.dump(key) for key in client.keys("*")}

    def put_back(self) -> None:
        with driver.Redis(port=self._port) as client, client.pipeline() as together:
            together.flushall()
            for key, value in self._kept.items():
                together.restore(key, 0, value)
            together.execute()

    def begin_anew(self) -> None:
        with driver.Redis(port=self._port) as client:
            client.flushall()
        create_list(self.url)
