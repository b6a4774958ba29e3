"""A machine with this program in /opt/signer/.venv: as the root file system of a container, or with systemd
running."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from support.clock import HANG
from support.service import ROOT

#: The unprivileged user of the image.
UID = 10001
#: Makes the root file system $1: the programs of this machine and this Python, all read-only, and the
#: directories that the caller passes as "what:where". The mounts end with the process, which has its own
#: namespace.
_MOUNT = """
root=$1 python=$2 packages=$3 source=$4 program=$5; shift 5
mount -t tmpfs -o mode=755 tmpfs "$root"
for directory in bin lib lib64 sbin usr; do
  if [ -L "/$directory" ]; then cp -P "/$directory" "$root/$directory"
  elif [ -d "/$directory" ]; then mkdir "$root/$directory"; mount --bind -o ro "/$directory" "$root/$directory"; fi
done
mkdir -p "$root/dev" "$root/opt/packages" "$root/opt/python" "$root/opt/signer" "$root/proc" "$root/src"
mkdir -m 1777 "$root/tmp"
mount --bind -o ro "$python" "$root/opt/python"
mount --bind -o ro "$packages" "$root/opt/packages"
mount --bind -o ro "$source" "$root/src"
mount --bind -o ro "$program" "$root/opt/signer"
while [ "$1" != -- ]; do
  mkdir -p "$root/${1#*:}"; mount --bind "${1%%:*}" "$root/${1#*:}"; shift
done
shift
cp -a /etc "$root/etc"
# A Python that was built with a shared library finds its own, and not the distribution's.
chroot "$root" ldconfig /opt/python/lib
"""
#: As a container engine does: a read-only root with /tmp in memory, and an unprivileged user who can gain no
#: rights.
_CONTAINER = (
    _MOUNT
    + f"""
mount --rbind /dev "$root/dev"
mount -t proc -o ro proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
cd "$root"
exec chroot "$root" setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs --bounding-set=-all \
  --inh-caps=-all -- env --ignore-environment "$@"
"""
)
#: systemd as process 1, with no unit enabled.
_SYSTEMD = (
    _MOUNT
    + """
find "$root/etc/systemd/system" -mindepth 1 -delete
rm -f "$root/etc/machine-id"; touch "$root/etc/machine-id"
exec systemd-nspawn --directory "$root" --machine "signer-$$" --register=no --keep-unit --console=pipe --kill-signal=SIGRTMIN+3 \
  --capability=all --boot systemd.unit=basic.target
"""
)


def cannot_mount() -> str:
    """Why such a machine cannot be made here; "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


def _namespace(directory: Path, script: str, mounts: dict[Path, str]) -> list[str]:
    """The command that makes the machine in `directory`, and runs the arguments appended to it in the
    machine."""
    root, program = directory / "root", directory / "program"
    root.mkdir(exist_ok=True)
    if not program.exists():
        _make_program(program)
    packages = Path(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    parts = [root, sys.base_prefix, packages, ROOT, program]
    bound = [f"{what}:{where}" for what, where in mounts.items()]
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh"),
        *(str(part) for part in parts),
        *bound,
        "--",
    ]


def _make_program(program: Path) -> None:
    """Do what `python -m venv .venv` and `pip install .` do, but leave the dependencies where they are."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    venv = program / ".venv"
    packages = venv / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "elsewhere.pth").write_text("/opt/packages\n")
    shutil.copytree(ROOT / "signer", packages / "signer")
    (venv / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(f"/opt/python/bin/{version}")
    # The script that pip made, with another first line.
    text = Path(sys.executable).with_name("signer").read_text()
    (venv / "bin" / "signer").write_text("#!/opt/signer/.venv/bin/python\n" + text.partition("\n")[2])
    # Readable by everybody, even if this clone is not.
    for path in (program, *program.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)


def container(directory: Path, volume: Path, environ: dict[str, str], command: list[str]) -> list[str]:
    """The command that runs `command` in a container with these variables, and with `volume` as /data."""
    os.chown(volume, UID, UID)
    variables = [f"{name}={value}" for name, value in environ.items()]
    return [*_namespace(directory, _CONTAINER, {volume: "data"}), *variables, *command]


class Machine:
    """systemd, booted in `directory`, with the network of this machine. Its /var/lib and /var/log are in that
    directory."""

    def __init__(self, directory: Path) -> None:
        self.lib, self.logs = directory / "lib", directory / "logs"
        self._directory = directory

    def __enter__(self) -> "Machine":
        for directory in (self.lib, self.logs):
            directory.mkdir()
        mounts = {self.lib: "var/lib", self.logs: "var/log"}
        self._console = self._directory / "console.log"
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                _namespace(self._directory, _SYSTEMD, mounts),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._enter = [
            "nsenter",
            f"--target={self._wait()}",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--wdns=/src",
        ]
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(HANG)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(HANG)

    def run(self, command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command in a root shell on the machine, in the directory of the source."""
        return subprocess.run(
            [*self._enter, "sh", "-euc", command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * HANG,
            check=False,
        )

    def says(self, command: str) -> str:
        """The output of a command, which must succeed."""
        ran = self.run(command)
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        return ran.stdout.strip()

    def _wait(self) -> int:
        """Wait until process 1 has booted; return its id on this machine."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline and self._process.poll() is None:
            for child in children.read_text().split():
                self._enter = ["nsenter", f"--target={child}", "--mount", "--pid"]
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        booted = self.run("systemctl is-system-running --wait")
                        if booted.stdout.strip() in ("running", "degraded"):
                            return int(child)
            time.sleep(0.02)
        self.__exit__()
        raise AssertionError(f"systemd did not boot:\n{self._console.read_text(errors='replace')}")


def programs_missing(*names: str) -> str:
    """Which of these programs are not installed, comma-separated; "" if all are."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return ", ".join(name for name in names if shutil.which(name, path=path) is None)
