"""The monitoring files in this folder, with Prometheus' own tools, and in a real Prometheus with the real
service."""

import http.client
import json
import math
import re
import shlex
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec.yaml
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clock import HANG
from support.service import KEY, Service, cli, free_port

from signer import Signer, generate_key, open_store
from signer.events import BUG

HERE: Final = Path(__file__).resolve().parent
PROMTOOL: Final = shutil.which("promtool")
PROMETHEUS: Final = shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus")

OLD_KEY: Final = f"{KEY}-until-last-week"
SETTINGS: Final = {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": OLD_KEY, "TOKEN_GRACE_SECONDS": "0"}
SCOPES: Final = "token:issue token:introspect token:revoke token:purge metrics:read read"
#: As in prometheus.yml and README.md.
COMMAND: Final = "python -m signer client prometheus --scope metrics:read --ttl 90d"
JOB: Final = "signer"
#: Labels that Prometheus adds to every series.
TARGET: Final = frozenset({"job", "instance"})
#: Seconds that any wait may take.
PATIENCE: Final = HANG
#: Durations in the configuration, and the shorter ones that tests put in their place.
HURRY: Final = {"offset 1m": "offset 2s", ":30s]": ":1s]", "for: 1m": "for: 1s"}

ALERTS: Final = msgspec.yaml.decode((HERE / "alerts.yaml").read_text())
RULES: Final = [rule for group in ALERTS["groups"] for rule in group["rules"]]
RECORDS: Final = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALARMS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
DASHBOARD: Final = json.loads((HERE / "dashboard.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
README: Final = (HERE / "README.md").read_text()
ASKED: Final = re.findall(r"```promql\n(.*?)```", README, re.DOTALL)
#: Panels without data in the first seven days.
LATE: Final = {"Fallback keys not used for seven days"}


def shown(interval: str = "1m", instance: str = ".*") -> list[tuple[str, str]]:
    """Title and query of every panel, with Grafana's variables replaced."""
    return [
        (panel["title"], query["expr"].replace("$__rate_interval", interval).replace("$instance", instance))
        for panel in PANELS
        for query in panel["targets"]
    ]


def queries() -> list[str]:
    """Every query: of alerts, dashboard and README."""
    return [rule["expr"] for rule in RULES] + [expr for _, expr in shown()] + ASKED


class Matcher(NamedTuple):
    """A matcher, such as `code=~"a|b"`."""

    label: str
    operator: str
    value: str


class Query(NamedTuple):
    """What a PromQL expression names: each metric with its matchers, and other labels."""

    selectors: list[tuple[str, list[Matcher]]]
    labels: frozenset[str]

    @classmethod
    def of(cls, expr: str) -> "Query":
        """Parse `text` without a parser of PromQL, which only promtool has."""
        text = r'"(?:[^"\\]|\\.)*"'
        grouping = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
        selector = re.compile(rf"([a-zA-Z_:][\w:]*)\s*\{{((?:[^}}\"]|{text})*)\}}")
        labels = {label for listed in grouping.findall(expr) for label in re.findall(r"\w+", listed)}
        rest = grouping.sub(" ", expr)
        found = [
            (name, [Matcher(*parts) for parts in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside)])
            for name, inside in selector.findall(rest)
        ]
        rest = re.sub(r"\[[^]]*\]|\boffset\s+\w+", " ", selector.sub(" ", rest))
        bare = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", rest)
        found += [(name, []) for name in bare if name not in ("and", "or", "unless")]
        return cls(found, frozenset(labels))


class Page:
    """What /metrics returned: the label names of each metric, the values of each label, and each series."""

    def __init__(self, *texts: str) -> None:
        self.labels: dict[str, set[str]] = defaultdict(set)
        self.values: dict[str, set[str]] = defaultdict(set)
        self.series: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self.labels[sample.name] |= sample.labels.keys()
                    self.series.add((sample.name, tuple(sorted(sample.labels.items()))))
                    for label, value in sample.labels.items():
                        self.values[label].add(value)


def scraped(service: Service) -> str:
    """The text of the service's /metrics."""
    reply = service.call("GET", "/metrics")
    assert reply.status == 200, reply.raw
    return reply.raw.decode()


def credential(directory: Path, name: str, scope: str, key: str) -> str:
    """A credential for a client: the last line of the output."""
    made = cli(directory, "client", name, "--scope", scope, "--ttl", "1d", SECRET_KEY=key)
    return made.stdout.splitlines()[-1]


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[Service]:
    """A production service after a change of keys, and a credential from before."""
    token = credential(directory, "tests", SCOPES, OLD_KEY)
    with Service(directory, SETTINGS | settings, credential=token) as running:
        yield running


def traffic(service: Service) -> None:
    """Requests of each kind that succeed, or are refused as they should be."""
    token = service.issue(sub="42", scope="read")
    assert service.says_valid(token)
    assert not service.says_valid(f"{token}x")
    assert service.call("POST", "/app/valid", {"token": token, "purpose": "access"}).json["status"]
    assert service.call("GET", "/auth?purpose=access", credential=token).status == 200
    assert service.call("GET", "/auth/path?purpose=other", credential=token).status == 401
    assert service.call("POST", "/app/consume", {"token": token}).status == 200
    assert service.call("POST", "/app/consume", {"token": token}).status == 409
    assert service.call("POST", "/app/rotate", {"token": service.issue()}).status == 200
    assert service.call("POST", "/app/revoke", {"token": token}).status == 200
    assert service.call("POST", "/app/revoke", {"sub": "42"}).status == 200
    assert service.call("DELETE", "/app/clear/all/tokens").status == 200
    assert service.call("POST", "/app/token", credential=token).status == 401
    assert service.call("GET", "/nothing/here").status == 404
    assert service.call("GET", "/healthz").status == 200
    code = service.call("POST", "/app/code", {"sub": generate_key()}).json
    wrong = f"{(int(code['code']) + 1) % 1_000_000:06}"
    for attempt, status in ((wrong, 409), (code["code"], 200)):
        body = {"token": code["token"], "code": attempt}
        assert service.call("POST", "/app/code/verify", body).status == status


def guessing(service: Service) -> None:
    """More wrong codes than a challenge allows."""
    token = service.call("POST", "/app/code", {"sub": generate_key()}).json["token"]
    code = {"token": token, "code": "x"}
    statuses = {service.call("POST", "/app/code/verify", code | {"code": f"{n:06}"}).status for n in range(6)}
    assert 429 in statuses


def theft(service: Service) -> None:
    """A token that is rotated once more after the grace period."""
    token = service.issue()
    until(lambda: service.call("POST", "/app/rotate", {"token": token}).status == 409)


def wrong_clock(service: Service) -> None:
    """A purge by a clock that is half a minute ahead, beyond the margins of a purge."""
    store = open_store(f"sqlite:///{service.directory}/tokens.db")
    Signer(KEY, store, clock=lambda: time.time() + 310 + 30).purge()
    store.close()
    assert service.call("POST", "/app/token", {"ttl": 5}).json["code"] == "clock_unreliable"


def until(came: Callable[[], Any], what: str = "it") -> Any:
    """Wait until the result is true; return it."""
    deadline = time.monotonic() + PATIENCE
    while not (said := came()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)
    return said


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with some traffic, a theft and a wrong clock."""
    with served(tmp_path_factory.mktemp("service")) as running:
        traffic(running)
        guessing(running)
        theft(running)
        wrong_clock(running)
        yield running


@pytest.fixture(scope="module")
def page(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """What this service exports, and another one whose audit trail and list fail, and which refuses callers
    for a long time."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, the disk that is always full: Linux")
    directory = tmp_path_factory.mktemp("faulty")
    with served(directory, AUDIT_LOG="/dev/full", RATE_LIMIT="1/minute") as faulty:
        assert faulty.call("POST", "/app/token").json["code"] == "audit_unavailable"
        refused = [faulty.call("POST", "/app/revoke", credential="x").json["code"] for _ in range(2)]
        assert refused == ["credential_invalid", "rate_limited"]
        with list_taken_away(directory):
            assert faulty.call("GET", "/readyz").json["code"] == "store_unavailable"
        # Twice, because the first request is counted only after its answer.
        return Page(scraped(service), scraped(service), until(lambda: scraped(faulty)))


@contextmanager
def list_taken_away(directory: Path) -> Iterator[None]:
    """Move the files of the list away for a while."""
    files = list(directory.glob("tokens.db*"))
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    for file in files:
        file.rename(elsewhere / file.name)
    yield
    for file in files:
        (elsewhere / file.name).rename(file)


def shipped(directory: Path, name: str, changes: Mapping[str, str]) -> Path:
    """A copy of a file beside this one, changed as an operator would."""
    text = (HERE / name).read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    copy = directory / name
    copy.write_text(text)
    return copy


def configured(directory: Path, ports: Sequence[int]) -> Path:
    """prometheus.yml for these services with short intervals, beside the alerts and a credential."""
    made = cli(directory, *shlex.split(COMMAND)[3:], SECRET_KEY=KEY)
    secret = directory / "signer.credential"
    secret.write_text(made.stdout.splitlines()[-1] + "\n")
    shipped(directory, "alerts.yaml", HURRY)
    changes = {
        '"127.0.0.1:8000"': ", ".join(f'"127.0.0.1:{port}"' for port in ports),
        "/etc/prometheus/signer.credential": str(secret),
        "scrape_interval: 15s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }
    return shipped(directory, "prometheus.yml", changes)


@dataclass
class Prometheus:
    """A private Prometheus that scrapes the services at these ports."""

    directory: Path
    targets: Sequence[int]
    port: int = field(default_factory=free_port)

    def __enter__(self) -> "Prometheus":
        assert PROMETHEUS
        self.log = self.directory / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={configured(self.directory, self.targets)}",
                    f"--storage.tsdb.path={self.directory}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        try:
            until(self._is_ready, "Prometheus")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(HANG)
        finally:
            self.process.kill()
            self.process.wait(HANG)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def asked(self, what: str, **arguments: str) -> Any:
        """The data of an answer of its API."""
        status, body = self._get(f"/api/v1/{what}?{urlencode(arguments)}")
        answer = json.loads(body)
        assert (status, answer["status"]) == (200, "success"), answer
        return answer["data"]

    def values(self, expr: str) -> list[float]:
        """The present values of a query."""
        return [float(one["value"][1]) for one in self.asked("query", query=expr)["result"]]


class Watch(NamedTuple):
    """A Prometheus that has scraped three services for some seconds."""

    prometheus: Prometheus
    service: Service
    robbed: Service
    doomed: Service

    def firing(self, service: Service) -> dict[str, str]:
        """The names and summaries of the alerts that fire for a service."""
        target = f"127.0.0.1:{service.port}"
        return {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in self.prometheus.asked("alerts")["alerts"]
            if alert["state"] == "firing" and alert["labels"]["instance"] == target
        }


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """One for all tests, because Prometheus waits five seconds before its first scrape."""
    with ExitStack() as running:
        names = "service", "robbed", "doomed"
        services = [running.enter_context(served(tmp_path_factory.mktemp(name))) for name in names]
        directory = tmp_path_factory.mktemp("prometheus")
        ports = [service.port for service in services]
        prometheus = running.enter_context(Prometheus(directory, ports))
        until(lambda: len(prometheus.values("count_over_time(signer_build_info[1m]) > 3")) == 3, "scrapes")
        yield Watch(prometheus, *services)


def checked(*arguments: str | Path) -> None:
    """promtool reports no error."""
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_configuration_and_rules(tmp_path: Path) -> None:
    """With the credential at the path of the configuration, and the rules beside it."""
    checked("check", "config", configured(tmp_path, [8000]))
    checked("check", "rules", HERE / "alerts.yaml")


@needs_promtool
def test_alerts_fire_when_they_should_and_rest_otherwise() -> None:
    """In the cases of alerts.test.yaml, which the rule engine of Prometheus evaluates."""
    checked("test", "rules", HERE / "alerts.test.yaml")


def test_each_alert_has_a_case_where_it_fires_and_one_where_none_does() -> None:
    """No alert is added without both."""
    cases = msgspec.yaml.decode((HERE / "alerts.test.yaml").read_text())["tests"]
    fired = [
        check["expr"] + one["labels"]
        for case in cases
        for check in case["promql_expr_test"]
        for one in check["exp_samples"]
    ]
    assert {name for text in fired for name in re.findall(r'"(Signer\w+)"', text)} == ALARMS.keys()
    for name in ALARMS:
        own = [case for case in cases if case["name"].startswith(name)]
        assert any(not check["exp_samples"] for case in own for check in case["promql_expr_test"]), name


@needs_promtool
def test_every_query_parses(tmp_path: Path) -> None:
    """Those of the dashboard and the README, as Prometheus parses them. The alerts are checked above."""
    rules = [{"record": f"query:{n}", "expr": expr} for n, expr in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_bytes(msgspec.yaml.encode({"groups": [{"name": "queries", "rules": rules}]}))
    checked("check", "rules", file)
    file.write_text(file.read_text().replace("rate(", "rate((", 1))
    with pytest.raises(AssertionError, match="could not parse expression"):
        checked("check", "rules", file)


def test_queries_name_metrics_and_labels_that_the_service_exports(page: Page) -> None:
    """Every metric and label of every query exists in the real service, or is added by a rule or by
    Prometheus."""
    labels = {name: found | TARGET for name, found in page.labels.items()} | {"up": TARGET}
    labels |= {name: Query.of(expr).labels for name, expr in RECORDS.items()}
    for expr in queries():
        query = Query.of(expr)
        assert query.selectors, expr
        for name, matchers in query.selectors:
            assert name in labels, (name, expr)
            assert {matcher.label for matcher in matchers} <= labels[name], (name, expr)
        assert query.labels <= set().union(*(labels[name] for name, _ in query.selectors)), expr


def test_texts_name_labels_that_their_query_has() -> None:
    """An unknown label would be empty in a legend or in the text of an alert."""
    for alert in ALARMS.values():
        said = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        query = Query.of(alert["expr"])
        assert said <= (query.labels or {*TARGET}), alert["alert"]
    for panel in PANELS:
        for query in panel["targets"]:
            said = set(re.findall(r"{{(\w+)}}", query["legendFormat"]))
            assert said <= (Query.of(query["expr"]).labels or {"instance"}), panel["title"]


def test_queries_ask_for_values_that_there_are(page: Page) -> None:
    """Each alternative of each matcher, such as event="theft", is a value that the real service exports."""
    known = page.values | {"job": {JOB}, "instance": {"a:1"}}
    known["code"] |= {BUG}  # Nobody knows how to provoke it.
    for expr in queries():
        for name, matchers in Query.of(expr).selectors:
            for label, operator, value in matchers:
                alternatives = value.split("|") if "~" in operator else [re.escape(value)]
                for one in alternatives:
                    found = any(re.fullmatch(one, text) for text in known[label])
                    assert found, (name, label, one)


def test_no_label_holds_what_a_caller_wrote(service: Service) -> None:
    """No token, path, address or method; other texts in requests create no new series."""

    def call_with(text: str, key_id: str) -> None:
        forged = f"sgt_{key_id}.{text}.x.y"
        for token in (text, forged, forged.replace("sgt_", "")):
            service.says_valid(token)
            service.call("POST", "/app/valid", {"token": token, "purpose": text})
            service.call("GET", f"/auth/{text}?purpose={text}", credential=token)
            service.call("GET", f"/{token}", headers={"X-Request-ID": text, "X-Forwarded-For": text})
            service.call("POST", "/app/revoke", {"token": token}, credential=token)
            service.call("POST", "/oauth/introspect", b"token=" + token.encode(), {"Content-Type": text})
            service.call("POST", "/app/code/verify", {"token": token, "code": text, "purpose": text})
        service.call("POST", "/app/token", {"sub": text, "aud": text, "sid": text, "purpose": text})
        service.call(text.upper(), f"/{text}")

    call_with("first", "aaaaaa")
    before = Page(scraped(service))
    token = service.issue(sub="second", sid="second", purpose="second")
    call_with("second", "bbbbbb")
    service.call("GET", f"/app/valid/{token}")
    service.call("GET", f"/auth/{token}?purpose=other", credential=token)
    after = Page(scraped(service))
    assert after.series == before.series
    for values in after.values.values():
        for value in values:
            assert not re.search(rf"second|bbbbbb|127\.0\.0\.1|{re.escape(token[11:])}", value, re.IGNORECASE)
            assert len(value) < 50


def test_each_alert_says_what_to_do() -> None:
    """And how urgent it is. Each is in the table of the README."""
    rows = re.findall(r"^\| `(Signer\w+)` \| (\w+) \|", README, re.MULTILINE)
    assert rows == [(name, alert["labels"]["severity"]) for name, alert in ALARMS.items()]
    for name, alert in ALARMS.items():
        assert "for" in alert, name
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), name
        assert alert["annotations"].keys() == {"summary", "description"}, name
        assert "the guide, Incidents" in alert["annotations"]["description"], name
    assert COMMAND in (HERE / "prometheus.yml").read_text()
    assert COMMAND in README


def test_the_dashboard_is_written_one_way() -> None:
    """So that a change made in Grafana is a small diff here."""
    text = json.dumps(DASHBOARD, indent=2, ensure_ascii=False) + "\n"
    assert text == (HERE / "dashboard.json").read_text()


def test_panels_are_complete_and_do_not_overlap() -> None:
    """Each has a title, a description and a unit, and uses the chosen data source and instances."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for query in panel["targets"]:
            selectors = re.findall(r"signer_\w+|\bup\b", query["expr"])
            assert query["expr"].count('instance=~"$instance"') == len(selectors), panel["title"]
            assert query["legendFormat"] or panel["type"] == "table", panel["title"]
    for one, other in combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = any(a[at] + a[size] <= b[at] or b[at] + b[size] <= a[at] for at, size in ("xw", "yh"))
        assert apart, (one["title"], other["title"])


@needs_promtool
def test_the_readme_tells_when_a_fallback_key_may_go(tmp_path: Path) -> None:
    """Its first query shows the keys in use, the second the keys that were not used for seven days."""
    case = {
        "interval": "4m",
        "input_series": [
            *(
                {"series": f'signer_key_info{{kid="{kid}",role="{role}"}}', "values": "1+0x3700"}
                for kid, role in (("new", "current"), ("used", "fallback"), ("once", "fallback"), ("kept", "fallback"), ("dead", "fallback"))
            ),
            {"series": 'signer_key_info{kid="young",role="fallback"}', "values": "_x3000 1+0x700"},
            {"series": 'signer_events_total{event="validate",outcome="ok",kid="new"}', "values": "0+5x3700"},
            {"series": 'signer_events_total{event="rotate",outcome="ok",kid="used"}', "values": "5+0x3000 6+1x700"},
            {"series": 'signer_events_total{event="authenticate",outcome="ok",kid="once"}', "values": "_x2000 1+0x20"},
            {"series": 'signer_events_total{event="consume",outcome="ok",kid="kept"}', "values": "_x2500 1+0x1200"},
            {"series": 'signer_events_total{event="validate",outcome="ok",kid="dead"}', "values": "0+5x300 1500+0x3400"},
            {"series": 'signer_events_total{event="validate",outcome="token_expired",kid="dead"}', "values": "0+5x3700"},
        ],
        "promql_expr_test": [
            {
                "expr": f"count by (kid) ({expr})",
                "eval_time": "10d",
                "exp_samples": [{"labels": f'{{kid="{kid}"}}', "value": 1}],
            }
            for expr, kid in zip(ASKED, ("used", "dead"), strict=True)
        ],
    }  # fmt: skip
    file = tmp_path / "queries.test.yaml"
    file.write_bytes(msgspec.yaml.encode({"evaluation_interval": "1d", "tests": [case]}))
    checked("test", "rules", file)


@needs_prometheus
def test_prometheus_reads_the_service_with_its_credential(watch: Watch) -> None:
    """The target is up and its metrics exist. No scrape is refused, and every rule can be evaluated."""
    watch.service.issue()
    target = f'job="signer",instance="127.0.0.1:{watch.service.port}"'
    issued = f'signer_http_requests_total{{{target},route="/app/token",status="200"}}'
    until(lambda: watch.prometheus.values(issued), "a request")
    assert watch.prometheus.values(f"up{{{target}}}") == [1]
    assert watch.prometheus.values('signer_http_requests_total{route="/metrics",status!="200"}') == []
    loaded = watch.prometheus.asked("rules")["groups"][0]["rules"]
    assert [rule["health"] for rule in loaded] == ["ok"] * len(RULES)


@needs_prometheus
def test_a_first_theft_and_a_first_wrong_clock_fire(watch: Watch) -> None:
    """Though their counters never increase, because they first appear with the value 1."""
    assert watch.firing(watch.robbed) == {}
    theft(watch.robbed)
    wrong_clock(watch.robbed)
    wanted = {"SignerTheft", "SignerClockUnreliable"}
    fired = until(lambda: wanted <= (found := watch.firing(watch.robbed)).keys() and found, "an alert")
    assert fired.keys() == wanted
    assert f"127.0.0.1:{watch.robbed.port}" in fired["SignerTheft"]


@needs_prometheus
def test_every_panel_has_data(watch: Watch) -> None:
    """After some traffic, with a theft and a wrong clock, each query has numbers."""
    theft(watch.service)
    wrong_clock(watch.service)
    asked = shown("10s", f"127.0.0.1:{watch.service.port}")
    missing = {(title, expr) for title, expr in asked if title not in LATE}
    deadline = time.monotonic() + PATIENCE
    while missing:
        assert time.monotonic() < deadline, missing
        traffic(watch.service)
        time.sleep(0.5)
        missing -= {
            (title, expr)
            for title, expr in missing
            if any(math.isfinite(value) for value in watch.prometheus.values(expr))
        }


@needs_prometheus
def test_a_service_that_dies_fires_the_alert(watch: Watch) -> None:
    """Its alert says that it is down. No other alert fires."""
    assert watch.firing(watch.doomed) == {}
    watch.doomed.kill()
    fired = until(lambda: watch.firing(watch.doomed), "the alert")
    assert fired.keys() == {"SignerDown"}
    assert f"127.0.0.1:{watch.doomed.port}" in fired["SignerDown"]
    assert "SignerDown" not in watch.firing(watch.service)


def test_a_credential_without_the_scope_reads_no_metrics(service: Service) -> None:
    """The credential of Prometheus must have metrics:read; a request without a credential is refused, too."""
    other = credential(service.directory, "other", "read", KEY)
    assert service.call("GET", "/metrics", credential=other).status == 403
    assert service.call("GET", "/metrics", headers={"Authorization": "Bearer x"}).status == 401
