"""The way to a Redis server, or to the current master: addresses, connections and errors."""

import logging
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import MovedError, NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...errors import ConfigurationError, StoreError
from .scripts import STATE, Script

_Sentinel: Any = Sentinel
_ClusterNode: Any = ClusterNode
logger = logging.getLogger(__name__)

#: Calls under way at the same time; further calls wait.
MAX_CONNECTIONS: Final = 8
_SHAPES: Final = (
    "DATABASE_URL: write redis://[user:password@]host[:port][/db], rediss:// for TLS, unix:///path,"
    " redis+sentinel://host:port,host:port/service[/db] or redis+cluster://host:port,host:port; options are"
    " replicas, ssl_ca_certs, ssl_certfile and ssl_keyfile, and db for unix."
)
_TLS: Final = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_SCHEMES: Final = {f"{base}{kind}" for base in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")}


class Address(NamedTuple):
    """The parts of a URL."""

    #: "", "sentinel", "cluster" or "unix".
    kind: str
    hosts: Sequence[tuple[str, int]]
    #: The master's name at the sentinels, or the path of the socket.
    name: str
    #: How many replicas must confirm a change before it is acknowledged.
    replicas: int
    #: For every connection to a server that holds data.
    options: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages; contains no secret."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return "/".join(str(part) for part in (hosts, self.name, self.options["db"]) if part != "")


def parse(url: str) -> Address:
    """The parts of a URL.

    Raises:
        ConfigurationError: it has another form. The message does not repeat it, because it may contain a
            password.
    """
    try:
        return _parsed(url)
    except (ValueError, LookupError):
        raise ConfigurationError(_SHAPES) from None


def _parsed(url: str) -> Address:
    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    if parts.scheme not in _SCHEMES | {"unix"} or parts.fragment:
        raise ValueError
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    login, _, hosts = parts.netloc.rpartition("@")
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    name = ""
    if base == "unix":
        kind, name, path = "unix", f"/{'/'.join(path)}", [query.pop("db", "0")]
    elif kind == "sentinel":
        name = path.pop(0)
    (db,) = map(int, path or ["0"])
    if (kind == "cluster" and db) or (kind == "unix") == bool(hosts) or name == "/":
        raise ValueError
    user, password = _login(login)
    options = {"username": user, "password": password, "db": db}
    if base == "rediss":
        options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        options |= {option: query.pop(option) for option in _TLS & query.keys()}
    replicas = int(query.pop("replicas", "0"))
    if query or db < 0 or replicas < 0:
        raise ValueError
    port = 26379 if kind == "sentinel" else 6379
    return Address(kind, [_host(host, port) for host in hosts.split(",") if hosts], name, replicas, options)


def _login(text: str) -> tuple[str | None, str | None]:
    user, _, password = text.partition(":")
    if user and not password:
        raise ValueError
    return unquote(user) or None, unquote(password) or None


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, parts.port or default


class Link:
    """Runs scripts on the server that a URL leads to.

    Raises (every method):
        StoreError: there was no usable answer within about `timeout` seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._address = parse(url)
        self.where = self._address.where
        self._timeout = timeout
        self._turns = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._is_lost = False
        # Any, because half of their methods have no types.
        self._sentinel: Any = None
        self._cluster: Any = None
        self._redis: Any = None
        with self.translated():
            self._connect()

    def _connect(self) -> None:
        address = self._address
        options: dict[str, Any] = {
            **address.options,
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "socket_keepalive": True,
            "decode_responses": True,
            "protocol": 2,
            # The driver cannot know whether a change was made, and so must not repeat it.
            "retry": Retry(NoBackoff(), 0),
        }
        if address.kind == "sentinel":
            known = ("socket", "protocol", "retry", "ssl", "decode")
            theirs = {name: value for name, value in options.items() if name.startswith(known)}
            self._sentinel = _Sentinel(address.hosts, sentinel_kwargs=theirs, **options)
            self._redis = self._sentinel.master_for(address.name)
        elif address.kind == "cluster":
            del options["db"]
            nodes = [_ClusterNode(host, port) for host, port in address.hosts]
            self._cluster = RedisCluster(startup_nodes=nodes, **options)
        elif address.kind == "unix":
            self._redis = redis.Redis(unix_socket_path=address.name, **options)
        else:
            ((host, port),) = address.hosts
            self._redis = redis.Redis(host=host, port=port, **options)

    def _client(self) -> Any:
        if self._redis is not None:
            return self._redis
        if self._is_lost:
            self._cluster.nodes_manager.initialize()
            self._is_lost = False
        node = self._cluster.get_node_from_key(STATE)
        if node is None:
            raise redis.ConnectionError("no node has its slot")
        return self._cluster.get_redis_connection(node)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """The answer of a script. A script that changes the list is sent once, and then the replicas are
        waited for."""
        if not self._turns.acquire(timeout=self._timeout):
            raise redis.TimeoutError
        started = monotonic()
        try:
            return self._sent(script, keys, arguments)
        except redis.ConnectionError:
            self._is_lost = True
            if script.changes or monotonic() - started > self._timeout / 2:
                raise
            sleep(random.uniform(0.01, 0.05))  # noqa: S311 - no secret
            return self._sent(script, keys, arguments)
        except redis.TimeoutError:
            self._is_lost = True
            raise
        finally:
            self._turns.release()

    def _sent(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        replicas = self._address.replicas if script.changes else 0
        # On the change's own connection: WAIT waits only for the changes of its connection.
        wait = [("WAIT", replicas, max(1, int(self._timeout * 500)))] if replicas else []
        for how in (("EVALSHA", script.digest), ("EVAL", script.text), ("EVAL", script.text)):
            reply, *waited = self._pipeline([(*how, len(keys), *keys, *arguments), *wait])
            if isinstance(reply, MovedError):
                self._is_lost = True
            elif not isinstance(reply, NoScriptError):
                break
        for result in (reply, *waited):
            if isinstance(result, Exception):
                raise result
        if waited and waited[0] < replicas:
            raise StoreError(
                f"A change of the list at {self.where} reached {waited[0]} replicas, and must reach"
                f" {replicas}: it may be made, and may be lost again. Repair the replicas, and repeat it."
            )
        return list(reply)

    def _pipeline(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        with self._client().pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute(raise_on_error=False))

    def info(self) -> dict[str, Any]:
        """The server's INFO; empty if this user may not read it."""
        with self.translated():
            try:
                return dict(self._client().info())
            except redis.ResponseError as error:
                logger.warning(
                    "The server of the list at %s does not answer INFO: %s", self.where, type(error)
                )
                return {}

    def listen(self, channel: str) -> Any:
        """A subscription, on a connection of its own. Its errors are redis-py's."""
        ear = self._client().pubsub()
        ear.subscribe(channel)
        return ear

    def close(self) -> None:
        """Close all connections, even those in use."""
        if self._cluster:
            self._cluster.disconnect_connection_pools()
        if self._redis:
            self._redis.connection_pool.disconnect()
        for sentinel in self._sentinel.sentinels if self._sentinel else ():
            sentinel.connection_pool.disconnect()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within it, errors become StoreError."""
        try:
            yield
        # All but the first two: unusable values, or a connection that another thread has just closed.
        except (
            redis.RedisError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError
        ) as error:  # fmt: skip
            reason = self._reason(error)
        else:
            return
        raise StoreError(f"The list at {self.where} cannot answer: {reason}.") from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, redis.TimeoutError):
            return f"no reply within {self._timeout:g} seconds"
        text = (str(error).splitlines() or [""])[0].rstrip(".")
        if isinstance(error, redis.ReadOnlyError) or "now a slave" in text:
            return "this server is a replica, and may lag: name the master in DATABASE_URL"
        # A server may quote a command that it did not understand, and so the password.
        secret = self._address.options["password"]
        return type(error).__name__ if secret and secret in text else text or type(error).__name__
