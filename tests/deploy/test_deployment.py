"""The deployment files in this folder are valid, and every command in them works."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deploy.machine import UID, Machine, cannot_mount, container, programs_missing
from support.clock import HANG, eventually
from support.service import KEY, ROOT, Reply, Service, cli, environment, free_port

from signer import Store
from signer.errors import KeyInvalid
from signer.settings import Settings

HERE = Path(__file__).resolve().parent
#: Where the examples have the program, and where it is on this machine.
INSTALLED, PROGRAMS = "/opt/signer/.venv/bin", str(Path(sys.executable).parent)
PATH = f"{PROGRAMS}:{os.environ['PATH']}:/usr/sbin:/sbin"
SERVICES = "signer.service", "signer-purge.service"
UNITS = *SERVICES, "signer.socket", "signer-purge.timer"
FILES = {
    "Dockerfile", "Dockerfile.dockerignore", "Procfile", "compose.yaml", "crontab", "kubernetes.yaml", "signer.env.example",
    "signer.logrotate", *UNITS,
}  # fmt: skip
#: Of 10. systemd 252 says 0.5; a later version may check more.
EXPOSURE = 1.0
#: A row that expired this many seconds ago is purged: leeway and margin are over.
LONG_AGO = 3600
#: Replaces this process by the program.
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
#: The same, with the listening socket argv[1], as a service manager passes it.
PASS_SOCKET = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    " os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execvp(sys.argv[2], sys.argv[2:])"
)

needs_systemd = pytest.mark.skipif(
    bool(programs_missing("systemd-analyze")), reason="systemd-analyze is not installed"
)
needs_logrotate = pytest.mark.skipif(bool(programs_missing("logrotate")), reason="logrotate is not installed")
needs_curl = pytest.mark.skipif(bool(programs_missing("curl")), reason="curl is not installed")


def text(name: str) -> str:
    return (HERE / name).read_text()


def yaml_documents(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(text(name)))


def instructions(name: str, stage: int = -1) -> list[tuple[str, str]]:
    """The instructions of one stage of a Dockerfile, as (instruction, arguments)."""
    joined = re.sub(r"\\\n\s*", " ", text("Dockerfile"))
    stages = re.split(r"^FROM .*$", joined, flags=re.MULTILINE)
    found = re.findall(r"^([A-Z]+) (.*)$", stages[stage], re.MULTILINE)
    return [(name, arguments) for name, arguments in found]


def instruction(name: str) -> str:
    return next(arguments for found, arguments in instructions("Dockerfile") if found == name)


def image_environment() -> dict[str, str]:
    pairs = [shlex.split(said) for name, said in instructions("Dockerfile") if name == "ENV"]
    return dict(pair.split("=", 1) for said in pairs for pair in said)


def unit(name: str, key: str) -> str:
    """The only value of `key` in a unit."""
    (value,) = re.findall(rf"^{key}=(.*)$", text(name), re.MULTILINE)
    return str(value)


def env_file(*, with_comments: bool = False) -> dict[str, str]:
    pattern = r"^#?([A-Z_]+)=(.*)$" if with_comments else "^([A-Z_]+)=(.*)$"
    return dict(re.findall(pattern, text("signer.env.example"), re.MULTILINE))


def procfile(process: str) -> str:
    (line,) = re.findall(rf"^{process}: (.*)$", text("Procfile"), re.MULTILINE)
    return str(line)


def kubernetes(kind: str) -> Any:
    (found,) = (document for document in yaml_documents("kubernetes.yaml") if document["kind"] == kind)
    return found


def pods() -> dict[str, Any]:
    """The pods that the manifests start, by their kind."""
    return {
        "Deployment": kubernetes("Deployment")["spec"]["template"],
        "CronJob": kubernetes("CronJob")["spec"]["jobTemplate"]["spec"]["template"],
    }


def pod_environment(container: Any) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def here(command: str) -> str:
    """The command with the paths of this machine."""
    return command.replace(INSTALLED, PROGRAMS)


def ways_to_start() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Each command that serves, and the environment that its file sets."""
    docker = json.loads(instruction("CMD"))
    (pod,) = pods()["Deployment"]["spec"]["containers"]
    return {
        "Dockerfile": (docker, image_environment()),
        # The service uses the image's command.
        "compose.yaml": (docker, image_environment() | compose_environment()),
        "kubernetes.yaml": (pod["command"], image_environment() | pod_environment(pod)),
        "signer.service": (shlex.split(here(unit("signer.service", "ExecStart"))), env_file()),
        "Procfile": (["sh", "-c", procfile("web").replace("0.0.0.0", "127.0.0.1")], {}),
    }


def compose(service: str) -> Any:
    (document,) = yaml_documents("compose.yaml")
    return document["services"][service]


def compose_environment() -> dict[str, str]:
    """The variables that it sets itself, without those that it only passes on."""
    said = compose("signer")["environment"].items()
    return {name: value for name, value in said if value is not None and "$" not in value}


def becoming(command: list[str]) -> tuple[str, ...]:
    """The command for Service, which replaces text in braces."""
    return ("-c", BECOME, *(part.replace("{", "{{").replace("}", "}}") for part in command))


def started(directory: Path, command: list[str], settings: Mapping[str, str], **options: Any) -> Service:
    """A service started by this command. Where the file names an address, a list or a trail, the test's is
    used."""
    changed = {
        "SECRET_KEY": KEY,
        "SECRET_KEY_FALLBACKS": "",
        "DATABASE_URL": f"sqlite:///{directory}/list.db",
        "HOST": "127.0.0.1",
        "PATH": PATH,
    }
    if settings.get("AUDIT_LOG", "").startswith("/"):
        changed["AUDIT_LOG"] = f"{directory}/audit.log"
    kept = {name: value for name, value in settings.items() if name != "PORT"}
    return Service(directory, kept | changed, command=becoming(command), **options)


def ran(command: list[str], directory: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(**{"PATH": PATH, **settings}),
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )


def expire(store: Store) -> None:
    """Add a row that a purge must delete."""
    store.revoke("0" * 22, int(time.time()) - LONG_AGO)
    assert store.count() == 1


@pytest.fixture(scope="module")
def credential(tmp_path_factory: pytest.TempPathFactory) -> str:
    scope = "token:issue token:revoke token:purge"
    directory = tmp_path_factory.mktemp("credential")
    return cli(directory, "client", "tests", "--scope", scope, "--ttl", "1d", SECRET_KEY=KEY).stdout.strip()


# Kubernetes, compose and the image.


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_the_manifests_are_valid(version: str) -> None:
    """Every document is accepted by the API of old and new versions, and has no unknown field."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    documents = yaml_documents("kubernetes.yaml")
    for document in documents:
        validator.validate(document, version, strict=True)
    documents[1]["spec"]["template"]["spec"]["containers"][0]["securityContex"] = {}
    with pytest.raises(validator.ValidationError, match="securityContex"):
        validator.validate(documents[1], version, strict=True)


def test_the_manifests_name_each_other() -> None:
    """The service, policy, claim, ports and secrets are those of the pods. No schema can check that."""
    deployment, pod = kubernetes("Deployment"), pods()["Deployment"]
    labels = pod["metadata"]["labels"].items()
    (running,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in running["ports"]}
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert kubernetes("Service")["spec"]["selector"].items() <= labels
    policy = kubernetes("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    (rule,) = policy["ingress"]
    for_callers = rule["from"][0]["podSelector"]["matchLabels"]
    assert for_callers.items() <= pods()["CronJob"]["metadata"]["labels"].items()
    probes = [running[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")]
    (service_port,) = kubernetes("Service")["spec"]["ports"]
    assert {*probes, service_port["targetPort"], rule["ports"][0]["port"]} <= set(ports)
    assert {str(ports["http"])} == {pod_environment(running)["PORT"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    claim = kubernetes("PersistentVolumeClaim")["metadata"]["name"]
    assert volumes["list"]["persistentVolumeClaim"]["claimName"] == claim
    assert {mount["name"] for mount in running["volumeMounts"]} == set(volumes)
    (job,) = pods()["CronJob"]["spec"]["containers"]
    url = pod_environment(job)["URL"]
    assert url.startswith(f"http://{kubernetes('Service')['metadata']['name']}:{service_port['port']}/")


def test_two_pods_never_share_the_list() -> None:
    """There is one replica, which ends before its successor starts, on a volume of one node; and jobs do not
    overlap."""
    spec = kubernetes("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert kubernetes("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert kubernetes("CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_pods_have_no_rights(kind: str) -> None:
    """They are admitted by the restricted Pod Security Standard, and have a read-only root as well."""
    spec = pods()[kind]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == UID
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for running in spec["containers"]:
        assert running["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in running["resources"]["limits"]


def test_compose_is_valid(tmp_path: Path) -> None:
    """It is what the schema of compose-spec allows."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    valid = ran([*check, str(HERE / "compose.yaml")], tmp_path)
    assert valid.returncode == 0, valid.stdout + valid.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text("compose.yaml").replace("read_only:", "readonly:"))
    assert ran([*check, str(wrong)], tmp_path).returncode == 1


def test_compose_starts_nothing_with_rights_or_without_a_key() -> None:
    """Both services are read-only and unprivileged, reached from this machine only, and need a key."""
    for service in (compose("signer"), compose("purge")):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["environment"]["SECRET_KEY"].startswith("${SECRET_KEY:?")
        assert [volume.split(":")[1] for volume in service["volumes"]] == ["/data"]
    assert all(port.startswith("127.0.0.1:") for port in compose("signer")["ports"])


def test_stopping_waits_longer_than_the_service_does() -> None:
    """Compose, systemd and Kubernetes wait longer than the ten seconds that the service gives to its
    requests."""
    pod = pods()["Deployment"]["spec"]
    (running,) = pod["containers"]
    slept = int(running["lifecycle"]["preStop"]["exec"]["command"][1])
    assert int(compose("signer")["stop_grace_period"].removesuffix("s")) > 11
    assert int(unit("signer.service", "TimeoutStopSec")) > 11
    assert pod["terminationGracePeriodSeconds"] - slept > 11


def test_the_image_is_made_of_what_the_build_sees_and_nothing_else() -> None:
    """All that the Dockerfile copies exists and is not ignored; keys and lists in the folder are ignored."""
    ignore = text("Dockerfile.dockerignore").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    copied = {
        source.rstrip("/")
        for name, said in instructions("Dockerfile", 1)
        if name == "COPY"
        for source in said.split()[:-1]
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
    # Nothing else is read by a build: the settings, the readme, the licence and the package.
    named = re.findall(
        r'^(?:readme|license-files) = \[?"([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert {"pyproject.toml", "signer", *named} == copied


def test_no_file_holds_a_key() -> None:
    """SECRET_KEY is empty, demanded, or taken from a secret."""
    for name in FILES:
        for value in re.findall(r"\b(?:SECRET_KEY|CREDENTIAL)=(\S*)", text(name)):
            assert value in ("", "$(cat", '"$(python', '"$(cat', '"$(kubectl'), (name, value)
    for pod in pods().values():
        for running in pod["spec"]["containers"]:
            secret = [entry for entry in running["env"] if entry["name"] in ("SECRET_KEY", "CREDENTIAL")]
            assert [set(entry) for entry in secret] == [{"name", "valueFrom"}]


# Every command.


@pytest.mark.parametrize(
    "name", ["Dockerfile", "compose.yaml", "kubernetes.yaml", "signer.service", "Procfile"]
)
def test_it_serves(tmp_path: Path, credential: str, name: str) -> None:
    """The command starts a production service, which ends by itself when it is asked to."""
    command, settings = ways_to_start()[name]
    with started(tmp_path, command, settings, credential=credential) as service:
        assert service.call("GET", "/readyz").status == 200
        assert service.call("POST", "/app/token", {}, {"Authorization": ""}).status == 401
        assert service.says_valid(service.issue(sub="42"))
        assert service.stop() in (0, -signal.SIGTERM)


@pytest.mark.parametrize("name", ["Dockerfile", "Procfile"])
def test_it_does_not_serve_the_world_without_a_key(tmp_path: Path, name: str) -> None:
    """On all addresses it needs SECRET_KEY, and its message says so."""
    command, settings = ways_to_start()[name]
    if name == "Procfile":
        command = ["sh", "-c", procfile("web")]
    said = ran(["timeout", "60", *command], tmp_path, **{**settings, "PATH": PATH, "PORT": "0"})
    assert said.returncode == 2
    assert "SECRET_KEY" in said.stderr


def test_health_is_told(tmp_path: Path) -> None:
    """HEALTHCHECK passes while the list answers; it fails without the list's file, and without a service. A
    pod that has lost its list gets no calls, and is not restarted."""
    options, _, check = instruction("HEALTHCHECK").partition(" CMD ")
    assert "--timeout=5s" in options
    (pod,) = pods()["Deployment"]["spec"]["containers"]
    path = {kind: pod[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    command, settings = ways_to_start()["Dockerfile"]
    with started(tmp_path, command, settings) as service:

        def is_healthy() -> bool:
            return ran(json.loads(check), tmp_path, PORT=str(service.port)).returncode == 0

        def statuses() -> dict[str, int]:
            return {kind: service.call("GET", path[kind]).status for kind in path}

        assert is_healthy()
        assert statuses() == {"startup": 200, "liveness": 200, "readiness": 200}
        (tmp_path / "list.db").unlink()
        eventually(lambda: not is_healthy())  # One check serves for a second.
        assert statuses() == {"startup": 200, "liveness": 200, "readiness": 503}
        service.stop()
        assert not is_healthy()


PURGES: dict[str, Callable[[], str]] = {
    "compose.yaml": lambda: shlex.join(compose("purge")["command"]),
    "Procfile": lambda: procfile("purge"),
    "signer-purge.service": lambda: unit("signer-purge.service", "ExecStart"),
    "crontab": lambda: crontab()[0],
}


def crontab() -> list[str]:
    """The commands of its alternatives."""
    return re.findall(r"^# 0 \* \* \* \* (.*)$", text("crontab"), re.MULTILINE)


@pytest.mark.parametrize("name", PURGES)
def test_it_purges_beside_the_service(tmp_path: Path, open_list: Callable[[str], Store], name: str) -> None:
    """The command deletes an expired row of the list that a service uses, and does not disturb the
    service."""
    url = f"sqlite:///{tmp_path}/list.db"
    env = tmp_path / "signer.env"
    settings = env_file() | {"SECRET_KEY": KEY, "DATABASE_URL": url, "AUDIT_LOG": "off"}
    env.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    line = here(PURGES[name]()).replace("/etc/signer/signer.env", str(env))
    # cron passes no settings; the others pass the environment.
    given = {} if name == "crontab" else settings
    with Service(tmp_path, {"SECRET_KEY": KEY, "DATABASE_URL": url}) as service:
        store = open_list(url)
        expire(store)
        purge = ran(["sh", "-c", line], tmp_path, **given)
        assert purge.returncode == 0, purge.stderr
        assert store.count() == 0
        assert service.call("GET", "/readyz").status == 200


def purge_over_http(
    name: str, port: int, credential: str, directory: Path
) -> "subprocess.CompletedProcess[str]":
    """Run the command of the CronJob or of the crontab."""
    if name == "kubernetes.yaml":
        (job,) = pods()["CronJob"]["spec"]["containers"]
        url = pod_environment(job)["URL"].replace("signer:8000", f"127.0.0.1:{port}")
        return ran(job["command"], directory, URL=url, CREDENTIAL=credential)
    header = directory / "cron.header"
    header.write_text(f"Authorization: Bearer {credential}")
    line = (
        crontab()[1]
        .replace("localhost:8000", f"localhost:{port}")
        .replace("/etc/signer/cron.header", str(header))
    )
    return ran(["sh", "-c", line], directory)


@pytest.mark.parametrize("name", ["kubernetes.yaml", pytest.param("crontab", marks=needs_curl)])
def test_it_purges_over_http(
    tmp_path: Path, open_list: Callable[[str], Store], credential: str, name: str
) -> None:
    """The command deletes an expired row, and fails if it is refused or gets no answer."""
    url = f"sqlite:///{tmp_path}/list.db"
    with Service(tmp_path, {"SECRET_KEY": KEY, "DATABASE_URL": url}) as service:
        store = open_list(url)
        expire(store)
        assert purge_over_http(name, service.port, "sgt_x", tmp_path).returncode != 0
        assert store.count() == 1
        purge = purge_over_http(name, service.port, credential, tmp_path)
        assert purge.returncode == 0, purge.stderr
        assert json.loads(purge.stdout) == {"status_code": 200, "status": True, "purged": 1}
        assert store.count() == 0
        service.stop()
        assert purge_over_http(name, service.port, credential, tmp_path).returncode != 0


def test_the_crontab_has_the_line_of_the_guide() -> None:
    """Both say the same."""
    assert crontab()[1] in (ROOT / "signer" / "guide" / "operate.md").read_text()


# The settings.


def test_the_settings_are_those_of_the_service() -> None:
    """The example has every setting and no unknown one."""
    known = {name.upper() for name in Settings.__struct_fields__ if name != "keys"}
    assert set(env_file(with_comments=True)) == known | {"SECRET_KEY", "SECRET_KEY_FALLBACKS"}


def test_the_settings_are_right_once_there_is_a_key() -> None:
    """Each value is accepted, also those behind a #. Without a key none is."""
    settings = env_file(with_comments=True)
    assert Settings.from_env(settings | {"SECRET_KEY": KEY}).issuer == settings["ISSUER"]
    with pytest.raises(KeyInvalid, match="SECRET_KEY"):
        Settings.from_env(env_file())


def test_what_stands_in_the_example_is_the_default() -> None:
    """It changes nothing but the paths of list and trail."""
    written = Settings.from_env(env_file() | {"SECRET_KEY": KEY})
    default = Settings.from_env({"SECRET_KEY": KEY})
    differing = {
        name
        for name in Settings.__struct_fields__
        if name != "keys" and getattr(written, name) != getattr(default, name)
    }
    assert differing == {"database_url", "audit_log"}


def test_sh_reads_the_settings_as_systemd_does(tmp_path: Path) -> None:
    """No value needs quotes, which Docker would take as a part of the value; also those behind a #."""
    file = tmp_path / "signer.env"
    file.write_text(re.sub("^#(?=[A-Z_]+=)", "", text("signer.env.example"), flags=re.MULTILINE))
    assert env_file(with_comments=True).items() <= read_by_sh(file).items()


def read_by_sh(file: Path) -> dict[str, str]:
    read = ran(["sh", "-c", f"set -a; . {file}; env -0"], file.parent)
    assert read.stderr == ""
    return dict(entry.split("=", 1) for entry in read.stdout.split("\0") if entry)


def test_sh_reads_the_values_of_the_guide_if_they_are_in_quotes(tmp_path: Path) -> None:
    """As the file's first lines say: it removes single quotes, as systemd does, and cuts nothing short."""
    file = tmp_path / "signer.env"
    page = (ROOT / "signer" / "guide" / "many-machines.md").read_text()
    (url,) = re.findall(r"^`DATABASE_URL='(.*&.*)'`", page, re.MULTILINE)
    values = {"DATABASE_URL": url, "RATE_LIMIT": "10/second;1000/hour"}
    file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    assert values.items() <= read_by_sh(file).items()
    Settings.from_env(values | {"SECRET_KEY": KEY})


# systemd and logrotate, file by file.


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A directory with the units, with the paths of this machine."""
    for name in UNITS:
        (tmp_path / name).write_text(here(text(name)))
    return tmp_path


@needs_systemd
def test_systemd_accepts_the_units(units: Path) -> None:
    """systemd-analyze has no complaint about them, but has one about an unknown setting."""
    check = ["systemd-analyze", "verify", "--man=no", *(str(units / name) for name in UNITS)]
    said = ran(check, units)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    wrong = units / "signer.service"
    wrong.write_text(wrong.read_text().replace("NoNewPrivileges", "NoMorePrivileges"))
    assert "NoMorePrivileges" in ran(check, units).stderr


def block(language: str, having: str = "") -> str:
    """The only block of DEPLOYMENT.md in this language that has this text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", text("DEPLOYMENT.md"), re.DOTALL)
    (found,) = (block for block in blocks if having in block)
    return str(found)


@needs_systemd
@pytest.mark.parametrize("setting", ["LoadCredential", "PrivateNetwork"])
def test_systemd_accepts_the_drop_ins(units: Path, setting: str) -> None:
    """Beside both services: for a key in a file, and for an engine."""
    drop_ins = [units / f"{name}.d" / "override.conf" for name in SERVICES]
    check = ["systemd-analyze", "verify", "--man=no", *(str(units / name) for name in UNITS)]
    for drop_in in drop_ins:
        drop_in.parent.mkdir()
        drop_in.write_text(block("ini", setting))
    said = ran(check, units)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    for drop_in in drop_ins:
        drop_in.write_text(block("ini", setting).replace(setting, f"{setting}s"))
        assert f"{setting}s" in ran(check, units).stderr


def test_the_settings_for_files_are_those_of_the_service(tmp_path: Path) -> None:
    """A key in such a file is the service's, and the pod with it is valid."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    named = re.search(r"^Environment=(\w+)=%d/secret-key$", block("ini", "LoadCredential"), re.MULTILINE)
    patch = pytest.importorskip("yaml", reason="PyYAML is not installed").safe_load(block("yaml"))
    assert named
    assert named[1] == patch["env"][0]["name"]
    assert Settings.from_env({named[1]: f"{tmp_path}/key"}).keys
    deployment = kubernetes("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["env"] = [entry for entry in container["env"] if "SECRET_KEY" not in entry["name"]] + patch[
        "env"
    ]
    container["volumeMounts"] += patch["volumeMounts"]
    pod["volumes"] += patch["volumes"]
    assert patch["env"][0]["value"].startswith(patch["volumeMounts"][0]["mountPath"] + "/SECRET_KEY")
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(deployment, "1.37", strict=True)


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_the_units_give_little_away(units: Path, name: str) -> None:
    """Their exposure, as systemd measures it, is at most 1.0 of 10."""
    check = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE * 10:.0f}"]
    said = ran([*check, str(units / name)], units)
    assert said.returncode == 0, said.stdout
    bare = units / name
    bare.write_text(f"[Service]\nExecStart={unit(name, 'ExecStart')}\n")
    assert ran([*check, str(bare)], units).returncode != 0


@needs_logrotate
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_trail_goes_on_in_a_new_file(tmp_path: Path, credential: str, workers: str) -> None:
    """After a forced rotation, new lines are in the new file and old ones in the old file, and none is
    lost."""
    trail = tmp_path / "audit.log"
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": str(trail), "WEB_CONCURRENCY": workers}
    with Service(tmp_path, settings, credential=credential) as service:
        reload = unit("signer.service", "ExecReload").replace("$MAINPID", str(service.process.pid))
        config = tmp_path / "signer.logrotate"
        config.write_text(
            text("signer.logrotate")
            .replace("/var/log/signer/audit.log", str(trail))
            # The owner of the directory in this test.
            .replace("su signer signer", "")
            .replace("systemctl try-reload-or-restart signer.service", reload)
        )
        config.chmod(0o644)
        service.wait_until_started(int(workers))
        before = [service.issue(sub=f"before-{number}") for number in range(20)]
        rotate = ran(["logrotate", "--force", "--state", f"{tmp_path}/state", str(config)], tmp_path)
        assert (rotate.returncode, rotate.stderr) == (0, "")
        (old,) = tmp_path.glob("audit.log-*")
        service.wait_for_log("Opened the audit trail anew", int(workers))
        after = [service.issue(sub=f"after-{number}") for number in range(20)]
    assert subjects(old) == [f"before-{number}" for number in range(len(before))]
    assert subjects(trail) == [f"after-{number}" for number in range(len(after))]
    assert trail.stat().st_mode & 0o777 == 0o600


def subjects(trail: Path) -> list[str]:
    """The subjects of the tokens that were issued."""
    lines = [json.loads(line) for line in trail.read_text().splitlines()]
    return [line["sub"] for line in lines if line["event"] == "issue" and line["outcome"] == "ok"]


# A listening socket that is passed to the service.


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_on_the_socket_that_it_is_given(tmp_path: Path, workers: str) -> None:
    """As systemd passes it, and on no other port. A client that connects before the service runs, or while it
    restarts, gets an answer."""
    settings = {"SECRET_KEY": KEY, "PORT": str(free_port()), "WEB_CONCURRENCY": workers}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=HANG) as early:
                early.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                process = subprocess.Popen(
                    [sys.executable, "-c", PASS_SOCKET, str(listening.fileno()), "signer", "serve"],
                    cwd=tmp_path,
                    env=environment(**settings, PATH=PATH),
                    stderr=subprocess.DEVNULL,
                    pass_fds=[listening.fileno()],
                    start_new_session=True,
                )
                try:
                    assert early.recv(65536).startswith(b"HTTP/1.1 200 ")
                    with pytest.raises(ConnectionRefusedError):
                        socket.create_connection(("127.0.0.1", int(settings["PORT"])), timeout=HANG)
                    process.terminate()
                    assert process.wait(HANG) in (0, -signal.SIGTERM)
                finally:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait(HANG)


# In a container, and on a machine with systemd.

no_mounts = cannot_mount() or programs_missing("unshare", "setpriv", "chroot")
needs_mounts = pytest.mark.skipif(bool(no_mounts), reason=f"no container can be made here: {no_mounts}")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


def image_settings(**settings: str) -> dict[str, str]:
    """The environment of the image."""
    given = image_environment() | {"SECRET_KEY": KEY, "HOST": "127.0.0.1"} | settings
    return given | {"PATH": given["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")}


@needs_mounts
def test_in_a_container_it_needs_no_root_and_no_disk_but_its_volume(
    tmp_path: Path, volume: Path, credential: str
) -> None:
    """It serves as an unprivileged user on a read-only root. After a restart it still refuses what was
    revoked."""
    (user, group) = map(int, instruction("USER").split(":"))
    assert (user, group) == (UID, UID)
    port = free_port()
    revoked = ""
    for _ in range(2):
        command = container(tmp_path, volume, image_settings(PORT=str(port)), json.loads(instruction("CMD")))
        with Service(tmp_path, port=port, command=becoming(command), credential=credential) as service:
            status = Path(f"/proc/{service.process.pid}/status").read_text()
            assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE)
            assert set(re.findall(r"^Cap...:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
            token = service.issue(sub="42")
            assert service.says_valid(token)
            assert service.call("POST", "/app/revoke", {"token": token}).status == 200
            assert not service.says_valid(token)
            assert not revoked or not service.says_valid(revoked)
            revoked = token
            assert service.stop() in (0, -signal.SIGTERM)
    assert {path.stat().st_uid for path in volume.iterdir()} == {user}
    assert (volume / "tokens.db").stat().st_mode & 0o077 == 0


@needs_mounts
def test_in_a_container_the_other_commands_work(
    tmp_path: Path, volume: Path, open_list: Callable[[str], Store]
) -> None:
    """Beside the service, as a user without a name: a new credential is accepted, and an expired row is
    purged."""
    making, purging = re.findall(r"^docker exec signer (.*?) *(?:#.*)?$", text("DEPLOYMENT.md"), re.MULTILINE)
    assert shlex.split(purging) == compose("purge")["command"]
    settings = image_settings(PORT=str(free_port()))
    serving = becoming(container(tmp_path, volume, settings, json.loads(instruction("CMD"))))
    with Service(tmp_path, port=int(settings["PORT"]), command=serving) as service:
        made = ran(container(tmp_path, volume, settings, shlex.split(making)), tmp_path)
        assert made.returncode == 0, made.stderr
        service.credential = made.stdout.strip()
        assert service.says_valid(service.issue(scope="read"))
        store = open_list(f"sqlite:///{volume}/tokens.db?mode=rw")
        expire(store)
        purged = ran(container(tmp_path, volume, settings, shlex.split(purging)), tmp_path)
        assert purged.returncode == 0, purged.stderr
        assert store.count() == 0


@needs_mounts
def test_the_container_of_these_tests_is_what_it_says(tmp_path: Path, volume: Path) -> None:
    """Only its volume and /tmp can be written to, and nobody can become root."""
    program = (
        "for place in / /opt/signer /usr /etc /data /tmp; do"
        " touch $place/x 2>/dev/null && echo $place; done; setpriv --reuid 0 true 2>/dev/null && echo root; true"
    )
    command = container(tmp_path, volume, image_settings(), ["sh", "-c", program])
    assert ran(command, tmp_path).stdout.split() == ["/data", "/tmp"]


@needs_mounts
def test_without_its_volume_the_container_does_not_start(tmp_path: Path, volume: Path) -> None:
    """A volume that cannot be written to is an error; the list is not kept anywhere else."""
    command = container(tmp_path, volume, image_settings(PORT="0"), json.loads(instruction("CMD")))
    os.chown(volume, 0, 0)
    volume.chmod(0o755)
    said = ran(command, tmp_path)
    assert said.returncode == 3
    assert "/data" in said.stderr


no_boot = no_mounts or programs_missing("systemd-nspawn", "logrotate", "useradd")
needs_boot = pytest.mark.skipif(bool(no_boot), reason=f"systemd cannot be booted here: {no_boot}")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with systemd and the service, installed as DEPLOYMENT.md says, except for pip and the
    port."""
    section = text("DEPLOYMENT.md").partition("\n## systemd\n")[2]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    steps = [line for line in block.splitlines() if "pip install" not in line]
    to_port = f"sed -i s/:8000/:{PORT}/ /etc/systemd/system/signer.socket\nsystemctl daemon-reload"
    with Machine(tmp_path_factory.mktemp("machine")) as booted:
        booted.says("\n".join(steps).replace("systemctl daemon-reload", to_port))
        yield booted


PORT = free_port()


def as_service(machine: Machine, command: str) -> str:
    """The output of `signer …`, called as DEPLOYMENT.md says."""
    (line,) = re.findall(r"^(runuser .*) check$", text("DEPLOYMENT.md"), re.MULTILINE)
    return machine.says(f"{line} {command}")


@pytest.fixture
def running(machine: Machine, tmp_path: Path) -> Service:
    """The service on that machine, and a credential for it."""
    machine.says("systemctl reset-failed; systemctl start signer.service")
    credential = as_service(machine, 'client tests --scope "token:issue token:revoke" --ttl 1d')
    return Service(tmp_path, port=PORT, credential=credential)


@needs_boot
def test_systemd_runs_it_without_rights(machine: Machine, running: Service) -> None:
    """It serves with all its hardening, as an unprivileged user, and `check` finds no problem."""
    assert running.call("GET", "/readyz").status == 200
    assert running.says_valid(running.issue(sub="42"))
    status = machine.says("cat /proc/$(systemctl show -P MainPID signer)/status")
    assert machine.says("id -u signer") in re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)
    assert set(re.findall(r"^Cap...:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert (machine.lib / "signer" / "tokens.db").stat().st_mode & 0o077 == 0
    assert (machine.lib / "signer").stat().st_mode & 0o077 == 0
    assert (machine.logs / "signer" / "audit.log").stat().st_mode & 0o077 == 0
    assert machine.says("stat -c %a /etc/signer/signer.env") == "640"
    assert "\nlist " in as_service(machine, "check")


@needs_boot
def test_systemd_has_it_serve_from_the_first_call_on(machine: Machine, running: Service) -> None:
    """If only the socket is up, a call starts the service."""
    machine.run("systemctl stop signer.service")
    assert machine.run("systemctl is-active signer.service").stdout == "inactive\n"
    assert running.call("GET", "/healthz").status == 200
    assert machine.says("systemctl is-active signer.service") == "active"


@needs_boot
def test_systemd_restarts_it_and_no_call_is_refused(machine: Machine, running: Service) -> None:
    """While it is called without a pause and restarted, it answers every call, some of them late."""

    def restart() -> None:
        for _ in range(3):
            machine.says("systemctl restart signer.service")
            # It is back when it answers. After that, calls go on for a while.
            assert running.call("GET", "/readyz").status == 200
            time.sleep(0.2)

    with ThreadPoolExecutor(4) as pool:
        work = pool.submit(restart)

        def calls() -> list[Reply]:
            answers = []
            while not work.done():
                answers.append(running.call("GET", "/readyz"))
            return answers

        callers = [pool.submit(calls) for _ in range(3)]
        work.result()
        answers = [answer.status for caller in callers for answer in caller.result()]
    assert len(answers) > 10
    assert set(answers) == {200}


@needs_boot
def test_systemd_starts_it_again_after_a_crash(machine: Machine, running: Service) -> None:
    """After kill -9 it is back without help, and without a call."""
    assert running.call("GET", "/readyz").status == 200
    main_pid = "systemctl show -P MainPID signer.service"
    killed = machine.says(main_pid)
    machine.says(f"kill -9 {killed}")
    eventually(lambda: machine.says(main_pid) not in ("0", killed))
    assert running.call("GET", "/readyz").status == 200


@needs_boot
def test_systemd_then_holds_on_to_its_list(machine: Machine, running: Service) -> None:
    """The commands after the installation: it is up, it has a log, and from now on a lost list is an
    error."""
    section = text("DEPLOYMENT.md").partition("\n## systemd\n")[2]
    (block,) = [found for found in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if "mode=rw" in found]
    said = machine.says(block.replace(":8000", f":{PORT}"))
    assert '"status":"ok"' in said
    assert machine.says("grep ^DATABASE_URL /etc/signer/signer.env").endswith("?mode=rw")
    assert running.call("GET", "/readyz").status == 200


@needs_boot
def test_systemd_leaves_it_alone_when_a_setting_is_wrong(machine: Machine, running: Service) -> None:
    """It ends with the code that the unit names, and is not restarted; the journal names the setting."""
    env = "/etc/signer/signer.env"
    machine.says(f"cp -p {env} {env}.good; sed -i s/^WEB_CONCURRENCY=.*/WEB_CONCURRENCY=many/ {env}")
    try:
        machine.run("systemctl restart signer.service")
        eventually(lambda: not machine.run("systemctl is-failed signer.service").returncode)
        time.sleep(float(unit("signer.service", "RestartSec")) + 0.5)
        told = machine.says("systemctl show -P NRestarts -P ExecMainStatus signer.service").split()
        journal = machine.says("journalctl --no-pager --lines=50")
    finally:
        machine.says(f"mv {env}.good {env}")
    assert sorted(told) == ["0", unit("signer.service", "RestartPreventExitStatus")]
    assert "signer: WEB_CONCURRENCY must be" in journal


@needs_boot
def test_systemd_reads_a_value_in_quotes_as_sh_does(machine: Machine, running: Service) -> None:
    """The service and a command get the same value, without the quotes."""
    env, value = "/etc/signer/signer.env", "a & b; $c (d) `e`"
    machine.says(f"cp -p {env} {env}.good; cat >> {env} <<'END'\nAPP_TITLE='{value}'\nEND")
    try:
        machine.says("systemctl restart signer.service")
        given = machine.says("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID signer)/environ")
        assert f"APP_TITLE={value}" in given.splitlines()
        assert re.search(rf"^APP_TITLE +{re.escape(value)}$", as_service(machine, "check"), re.MULTILINE)
    finally:
        machine.says(f"mv {env}.good {env}; systemctl restart signer.service")


@needs_boot
def test_systemd_lets_it_call_an_engine_with_the_drop_in(machine: Machine, running: Service) -> None:
    """Without it the service is in a network of its own. The drop-in adds to the address families of both units."""
    is_in_network = (
        "test /proc/$(systemctl show -P MainPID signer)/ns/net -ef /proc/1/ns/net && echo yes || echo no"
    )
    folders = " ".join(f"/run/systemd/system/{name}.d" for name in SERVICES)
    assert machine.says(is_in_network) == "no"
    try:
        machine.says(
            f"for d in {folders}; do mkdir -p $d; echo '{block('ini', 'PrivateNetwork')}' > $d/x.conf; done"
        )
        machine.says("systemctl daemon-reload; systemctl restart signer.service")
        assert running.call("GET", "/readyz").status == 200
        assert machine.says(is_in_network) == "yes"
        for name in SERVICES:
            shown = machine.says(
                f"systemctl show -P PrivateNetwork -P RestrictAddressFamilies {name}"
            ).split()
            assert sorted(shown) == ["AF_INET", "AF_INET6", "AF_UNIX", "no"], name
        machine.says("systemctl start signer-purge.service")
    finally:
        machine.says(f"rm -r {folders}; systemctl daemon-reload; systemctl restart signer.service")


@needs_boot
def test_systemd_purges(machine: Machine, running: Service, open_list: Callable[[str], Store]) -> None:
    """The timer's service deletes an expired row while the service runs; the timer waits for its hour."""
    list_path = machine.lib / "signer" / "tokens.db"
    assert running.call("GET", "/readyz").status == 200
    owner = list_path.stat()
    store = open_list(f"sqlite:///{list_path}?mode=rw")
    before = store.count()
    store.revoke("1" * 22, int(time.time()) - LONG_AGO)
    machine.says("systemctl start signer-purge.service")
    assert store.count() == before
    assert running.call("GET", "/readyz").status == 200
    assert list_path.stat().st_uid == owner.st_uid
    next_run = machine.says("systemctl show -P NextElapseUSecRealtime signer-purge.timer")
    assert 0 < int(machine.says(f"date +%s --date='{next_run}'")) - time.time() < 3600 + 5 * 60


@needs_boot
@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_and_logrotate_change_the_file_of_the_trail(
    machine: Machine, running: Service, workers: str
) -> None:
    """With the file as it is, logrotate is run: new lines are in the new file, with one worker and with
    two."""
    machine.says(
        f"sed -i s/^WEB_CONCURRENCY=.*/WEB_CONCURRENCY={workers}/ /etc/signer/signer.env; systemctl restart signer"
    )
    anew = "journalctl --no-pager --unit signer.service | grep -c 'Opened the audit trail anew' || true"
    before = int(machine.says(anew))
    logs = machine.logs / "signer"
    for old in logs.glob("audit.log-*"):
        old.unlink()
    for number in range(10):
        running.issue(sub=f"before-{workers}-{number}")
    machine.says("logrotate --force --state /run/logrotate.state /etc/logrotate.d/signer")
    eventually(lambda: int(machine.says(anew)) == before + int(workers))
    for number in range(10):
        running.issue(sub=f"after-{workers}-{number}")
    (old,) = logs.glob("audit.log-*")
    assert [sub for sub in subjects(old) if f"-{workers}-" in sub] == [
        f"before-{workers}-{n}" for n in range(10)
    ]
    assert subjects(logs / "audit.log") == [f"after-{workers}-{number}" for number in range(10)]


# The page.


def test_the_page_speaks_of_every_file() -> None:
    """Its table links to each file of this folder, and to no other."""
    linked = set(re.findall(r"\]\(([^)]+)\)", text("DEPLOYMENT.md")))
    assert linked == FILES | {"README.md", "nginx-signer.conf", "../../signer/guide/operate.md"}
    assert all((HERE / name).is_file() for name in linked)


def test_the_commands_of_the_page_are_in_the_syntax_of_sh(tmp_path: Path) -> None:
    """Each block can be pasted into a shell."""
    blocks = re.findall(r"```sh\n(.*?)```", text("DEPLOYMENT.md"), re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        assert ran(["sh", "-n", "-c", block], tmp_path).stderr == ""
        for name in re.findall(r"tests/deploy/([\w.-]+)", block):
            assert name in FILES or name == ".env"
