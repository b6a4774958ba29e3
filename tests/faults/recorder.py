"""An observer outside of the services: it speaks only HTTP, records every call, and judges all of them
together.

While a fault lasts it revokes tokens, uses tokens with one use up through several nodes at once, and
validates revoked tokens and good ones through every node.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from support.clock import HANG, eventually
from support.service import KEY

from signer import Signer
from signer.credentials import issue_credential
from signer.stores.memory import MemoryStore

#: The status of a call without an answer.
NO_ANSWER: Final = 0
_TRIES: Final = 3
_BATCH: Final = 500
_DAY: Final = 24 * 60 * 60
_LIFE: Final = 30 * _DAY
#: Seconds without any failure until the service counts as repaired.
_CALM: Final = 0.8


def _long_ago() -> float:
    # Tokens were issued yesterday, so that they are valid on clocks that are an hour wrong.
    return time.time() - _DAY


MAKER: Final = Signer(KEY, MemoryStore(), ttl=_LIFE, clock=_long_ago)
CREDENTIAL: Final = issue_credential(
    MAKER, "faults", "token:issue token:introspect token:revoke revocations:read", _LIFE
)


@dataclass(frozen=True)
class Node:
    """A service to call, on `port`.

    `bound` is the number of seconds after which it must know of a revocation. If it is not `writable`, it is
    a copy.
    """

    port: int
    bound: float = 0.0
    is_writable: bool = True


class Call(NamedTuple):
    """One request, with times by time.monotonic, and its answer. `says` is the `status` in the answer, or its
    `code`."""

    kind: str
    node: Node
    token: str
    sent: float
    answered: float
    status: int
    says: Any = None

    @property
    def is_failure(self) -> bool:
        return self.status in (NO_ANSWER, 503)


class Client:
    """Calls nodes, with one connection to each, which it keeps as long as possible."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connections: dict[Node, http.client.HTTPConnection] = {}

    def call(self, kind: str, node: Node, token: str, path: str, body: Any = None) -> Call:
        if node not in self._connections:
            self._connections[node] = http.client.HTTPConnection(
                "127.0.0.1", node.port, timeout=self._timeout
            )
        connection = self._connections[node]
        headers = {"Authorization": f"Bearer {CREDENTIAL}", "Content-Type": "application/json"}
        sent = time.monotonic()
        try:
            connection.request("POST" if body else "GET", path, body and json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connections.pop(node).close()
            return Call(kind, node, token, sent, time.monotonic(), NO_ANSWER)
        says = answer if kind in ("issue", "final") else answer.get("code", answer.get("status"))
        return Call(kind, node, token, sent, time.monotonic(), response.status, says)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


@dataclass
class Recorder:
    """Runs as a context, from the beginning of the test to the end; `begin` and `end` mark the fault.

    Args:
        nodes: all of them.
        timeout: seconds that a call may take.
        issues: whether it also issues tokens at the writable nodes; they are valid everywhere at once.
        pause: seconds between two calls of a thread.
        stream: number of additional threads that revoke without a pause, each at one node while that answers;
            but not while the service is waited for.
    """

    nodes: Sequence[Node]
    timeout: float = 10.0
    issues: bool = True
    pause: float = 0.012
    stream: int = 0
    calls: list[Call] = field(default_factory=list)
    #: When each revocation was acknowledged.
    revoked: dict[str, float] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    def __enter__(self) -> "Recorder":
        self._goes_on = True
        self._is_writing = True
        self._is_streaming = True
        self._good = [MAKER.issue() for _ in range(20)]
        self._singles = itertools.count()
        self._single_tokens: defaultdict[int, str] = defaultdict(lambda: MAKER.issue(max_uses=1))
        self._lock = threading.Lock()
        self._busy: list[threading.Lock] = []
        writable = [node for node in self.nodes if node.is_writable]
        jobs: list[Callable[[Client, int], None]] = [self._revoke(writable)] * 2
        jobs += [self._consume(writable)] * 3
        jobs += [check(node) for node in self.nodes for check in (self._check_revoked, self._check_good)]
        jobs += [self._issue(node) for node in writable if self.issues]
        stream = [self._revoke(writable, turn % len(writable)) for turn in range(self.stream)]
        self._threads = [threading.Thread(target=self._work, args=(job,)) for job in jobs]
        self._threads += [threading.Thread(target=self._flow, args=(job,)) for job in stream]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._goes_on = False
        for thread in self._threads:
            thread.join(HANG)

    def begin(self) -> None:
        """The fault begins. Before that, wait until every kind of call has been answered."""
        started = time.monotonic()
        eventually(lambda: len(self.calls) > 50)
        self._await_whole(started)
        self.began = time.monotonic()

    def end(self) -> None:
        """The fault ends; the service must recover by itself."""
        self.ended = time.monotonic()

    def write(self, *, goes_on: bool) -> None:
        """Continue with changes; or stop, and return when none is under way."""
        self._is_writing = goes_on
        for busy in self._busy if not goes_on else ():
            with busy:
                pass  # The last change of that thread has ended.

    def await_whole(self) -> None:
        """Wait until every node answers every kind of call again, and none fails.

        Raises:
            AssertionError: that did not happen in time.
        """
        self._is_streaming = False
        self._await_whole(self.ended)
        self._is_streaming = True

    def _await_whole(self, since: float) -> None:
        deadline = since + HANG
        wanted = {(call.kind, call.node) for call in self.calls}
        while True:
            now, calls = time.monotonic(), list(self.calls)
            since = max([since, *(call.answered for call in calls if call.is_failure)])
            answered = {(call.kind, call.node) for call in calls if call.answered > since}
            if now > since + _CALM and answered >= wanted:
                return
            assert now < deadline, f"not whole after {HANG} s: {wanted - answered}, {calls[-5:]}"
            time.sleep(0.1)

    def _flow(self, job: Callable[[Client, int], None]) -> None:
        with closing(Client(self.timeout)) as client:
            for number in itertools.count():
                while self._goes_on and not self._is_streaming:
                    time.sleep(self.pause)
                if not self._goes_on:
                    return
                job(client, number)

    def _work(self, job: Callable[[Client, int], None]) -> None:
        self._busy.append(busy := threading.Lock())
        with closing(Client(self.timeout)) as client:
            for number in itertools.count():
                if not self._goes_on:
                    return
                with busy:
                    job(client, number)
                time.sleep(self.pause * random.uniform(0.5, 1.5))

    def _note(self, call: Call) -> Call:
        self.calls.append(call)
        return call

    def _revoke(self, nodes: Sequence[Node], first: int | None = None) -> Callable[[Client, int], None]:
        """Revoke a token at this node first, or at each in turn; and at the next one if the result is
        unknown."""

        def job(client: Client, number: int) -> None:
            sub = f"{threading.get_ident()}-{number}"
            token = MAKER.issue(sub=sub)
            wanted = {"token": token} if number % 8 else {"sub": sub}
            start = number % len(nodes) if first is None else first
            for node in itertools.islice(itertools.cycle(nodes), start, None):
                if not (self._goes_on and self._is_writing):
                    return
                call = self._note(client.call("revoke", node, token, "/app/revoke", wanted))
                if call.status == 200:
                    self.revoked[token] = call.answered
                if not call.is_failure:
                    return
                time.sleep(0.05)

        return job

    def _consume(self, nodes: Sequence[Node]) -> Callable[[Client, int], None]:
        def job(client: Client, _: int) -> None:
            if not self._is_writing:
                return
            with self._lock:
                turn = next(self._singles)
                token = self._single_tokens[turn // _TRIES]
            # The next thread uses the same token at the same time at the next node; and again if the result
            # is unknown.
            start = turn % len(nodes)
            for node in itertools.islice(itertools.cycle(nodes), start, start + 2):
                call = client.call("consume", node, token, "/app/consume", {"token": token})
                if not self._note(call).is_failure:
                    return

        return job

    def _check_revoked(self, node: Node) -> Callable[[Client, int], None]:
        def job(client: Client, number: int) -> None:
            latest = time.monotonic() - node.bound
            old = [token for token, at in self.revoked.copy().items() if at < latest][-500:]
            if not old:
                return
            token = old[-1] if number % 2 else random.choice(old)
            if number % 4 < 2:
                self._note(client.call("revoked", node, token, f"/app/valid/{token}"))
            else:
                self._note(client.call("revoked", node, token, "/app/valid", {"token": token}))

        return job

    def _check_good(self, node: Node) -> Callable[[Client, int], None]:
        def job(client: Client, number: int) -> None:
            token = self._good[number % len(self._good)]
            self._note(client.call("good", node, token, f"/app/valid/{token}"))

        return job

    def _issue(self, node: Node) -> Callable[[Client, int], None]:
        def job(client: Client, number: int) -> None:
            call = client.call("issue", node, "", "/app/token", {"sub": f"sub-{number}"})
            if call.status == 200:
                for other in self.nodes:
                    token = call.says["token"]
                    self._note(client.call("good", other, token, f"/app/valid/{token}"))
            self._note(call._replace(says=None))
            time.sleep(10 * self.pause)

        return job

    def verdict(self) -> dict[str, float]:
        """Ask every node about everything that was acknowledged, and judge. All nodes must be back."""
        time.sleep(max(node.bound for node in self.nodes))
        granted = self._granted()
        client = Client(HANG)
        for node in self.nodes:
            self.lost += _accepted(client, node, self.revoked, "token_revoked")
            self.lost += _accepted(client, node, granted, "token_used")
        client.close()
        return {
            "sent": len(self.calls),
            "revoked": len(self.revoked),
            "used": len(granted),
            "503": sum(call.status == 503 for call in self.calls),
            "no answer": sum(call.status == NO_ANSWER for call in self.calls),
            **{name: len(found) for name, found in self.evidence().items()},
            "whole": round(
                max([0.0, *(call.answered - self.ended for call in self.calls if call.is_failure)]), 1
            ),
        }

    def evidence(self) -> dict[str, list[Any]]:
        """The violations of each kind."""
        twice = [token for token, times in self._granted().items() if times > 1]
        return {"stale": self._stale(), "twice": twice, "lost": self.lost, "wrong": self._wrong()}

    def _granted(self) -> Counter[str]:
        """How often each token with one use was accepted."""
        return Counter(call.token for call in self.calls if call.kind == "consume" and call.status == 200)

    def _stale(self) -> list[Call]:
        """Revoked tokens that were called valid after the bound."""
        return [
            call
            for call in self.calls
            if call.kind == "revoked"
            and call.says is True
            and call.sent > self.revoked[call.token] + call.node.bound
        ]

    def _wrong(self) -> list[Call]:
        """Calls that were refused without a reason: with good tokens, or with uses that nobody can have
        had."""
        doubtful = {
            call.token for call in self.calls if call.kind == "consume" and call.status != 409
        }  # It was accepted, or may have been.
        return [
            call
            for call in self.calls
            if (not call.is_failure and call.status != 200 and call.kind != "consume")
            or (call.kind == "good" and call.status == 200 and call.says is not True)
            or (call.kind == "consume" and call.status not in (NO_ANSWER, 200, 409, 503))
            or (call.kind == "consume" and call.status == 409 and call.token not in doubtful)
        ]


def _accepted(client: Client, node: Node, tokens: Iterable[str], code: str) -> list[str]:
    """The tokens that the node does not refuse for this reason."""
    asked, accepted = list(tokens), list[str]()
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        answer = client.call("final", node, "", "/app/valid", {"tokens": batch})
        assert answer.status == 200, answer
        results = answer.says["results"]
        accepted += [token for token, told in zip(batch, results, strict=True) if told.get("code") != code]
    return accepted
