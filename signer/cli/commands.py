"""The commands of the command line. They use the revocation list and the keys of the settings."""

import argparse
import getpass
import os
import pwd
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from ..assembly import assemble, keys_of
from ..audit import STDOUT
from ..credentials import issue_credential
from ..errors import ClockError, ConfigurationError, SystemUnavailable, TokenMalformed
from ..events import Origin, origin
from ..policy import PURGE_PAUSE
from ..settings import AUDIT_OFF, Settings, taken_from
from ..signer import Signer
from ..stores import opening
from ..stores.asking import Asker
from ..stores.opening import sqlite_path
from ..tokens.claims import Claims
from ..tokens.keys import KeyRing, generate_key
from ..tokens.values import IssueRequest, check_public, converted

#: Seconds between two reports of progress, while a purge runs.
_PROGRESS: Final = 1.0
#: Seconds that a command waits for the list. If the list is only locked, its own shorter limit ends the wait.
_ANSWER_TIMEOUT: Final = 6.0
#: Bytes that are read from standard input: more than a token has.
_MAX_INPUT: Final = 8192


R = TypeVar("R")


class Result(NamedTuple):
    """The result of a command.

    `said` is all of it; `alone` is what is printed for people in its place, if anything, such as a token.
    """

    said: dict[str, Any]
    alone: str | None = None
    exit_code: int = 0


def keygen(options: argparse.Namespace) -> Result:
    """Print a new key. Reads no settings, because it is needed to correct them."""
    key = generate_key()
    return Result({"key": key}, key)


def purpose_key(options: argparse.Namespace) -> Result:
    """Print the key of one purpose."""
    key = Signer(keys_of(_settings())).purpose_key(options.purpose)
    return Result({"purpose": options.purpose, "key": key}, key)


def client(options: argparse.Namespace) -> Result:
    """Print a new credential. It creates a missing SQLite file, because it is the first command that a new
    user calls; of the other commands only create_list creates a list."""

    def issued(signer: Signer) -> str:
        return issue_credential(signer, options.name, options.scope, options.ttl)

    credential = _asked(issued, create=True, only_reads=True)
    claims = Signer(generate_key()).inspect(credential).unverified_claims  # it has just been made
    return Result({"client_id": options.name, "credential": credential, **_said(claims)}, credential)


def issue(options: argparse.Namespace) -> Result:
    """Print a new token."""
    names = ("purpose", "sub", "ttl", "scope", "aud", "sid", "data", "max_uses")
    asked = {name: getattr(options, name) for name in names} | {"bind": _bind(options)}
    request = converted(asked, IssueRequest)
    token, claims = _asked(lambda signer: signer.grant(request), only_reads=True)
    return Result({"token": token, **_said(claims)}, token)


def validate(options: argparse.Namespace) -> Result:
    """Print the claims of the token on standard input, if it is valid."""
    token = _token()
    demands = _demands(options)

    def validated(signer: Signer) -> Claims:
        if options.purpose is None:
            return signer.introspect(token, **demands)
        return signer.validate(token, purpose=options.purpose, **demands)

    return Result({"status": True, **_said(_asked(validated, only_reads=True))})


def consume(options: argparse.Namespace) -> Result:
    """Use the token on standard input once; print its claims and how many uses are left."""
    check_public(options.purpose)
    token = _token()
    demands = _demands(options)
    use = _asked(lambda signer: signer.consume(token, purpose=options.purpose, **demands))
    return Result({"status": True, "uses_left": use.uses_left, **_said(use.claims)})


def inspect(options: argparse.Namespace) -> Result:
    """Print the claims of the token on standard input. Verifies nothing: it reads neither key nor list."""
    claims = Signer(generate_key()).inspect(_token()).unverified_claims
    return Result({"verified": False, **_said(claims)})


def revoke(options: argparse.Namespace) -> Result:
    """Revoke one token, or all tokens of a subject, a session or a client."""
    every = {name: getattr(options, name) for name in ("jti", "sub", "sid", "client_id")}
    # An empty name is an error: a variable in the shell was not set. Standard input is not read in its place.
    named = {name: value for name, value in every.items() if value is not None}
    token = "" if named else _token()

    def revoked(signer: Signer) -> dict[str, str]:
        match named:
            case {"jti": jti}:
                signer.revoke_jti(jti)
            case {"sub": sub}:
                signer.revoke_subject(sub)
            case {"sid": sid}:
                signer.revoke_session(sid)
            case {"client_id": client_id}:
                signer.revoke_client(client_id)
            case _:
                return {"jti": signer.revoke(token).jti}
        return named

    return Result({"revoked": True, **_asked(revoked)})


def purge(options: argparse.Namespace) -> Result:
    """Delete the rows of expired tokens; report progress on standard error."""
    purged, latest = 0, time.monotonic()
    with _signer() as signer:
        for step in signer.purge_steps():
            purged += step
            if time.monotonic() - latest > _PROGRESS:
                latest = time.monotonic()
                print(f"signer: {purged} rows so far", file=sys.stderr)
            time.sleep(PURGE_PAUSE)
    return Result({"purged": purged})


def create_list(options: argparse.Namespace) -> Result:
    """Create an empty list at DATABASE_URL, where there is none yet."""
    url = _settings().database_url
    opening.create_list(url)
    said = f"Made an empty list, on which nothing is revoked: {_without_secrets(url)}"
    return Result({"created": _without_secrets(url)}, said)


def backup(options: argparse.Namespace) -> Result:
    """Copy the list to a new file. The list may be in use."""
    path = sqlite_path(_settings().database_url)
    if not path:
        raise ConfigurationError(
            "DATABASE_URL names no SQLite file: back up the database with the tools of its engine."
        )
    from ..stores.sqlite.file import back_up

    back_up(path, options.file)
    return Result({"backup": options.file})


def serve(options: argparse.Namespace) -> Result:
    """Serve over HTTP until a signal ends it."""
    from ..web import serve as serve_http

    serve_http()
    return Result({}, "")


def check(options: argparse.Namespace) -> Result:
    """Print the settings in force, and whether revocation list, clock and audit trail work."""
    from ..web.access.limits import Limits

    settings = _settings()
    said = _shown(settings) | {"taken_from": ", ".join(taken_from(os.environ).values())}
    Limits(settings.rate_limit, settings.counting_url)
    _check_trail(settings.audit_log)
    try:
        with closing(assemble(replace(settings, audit_log=AUDIT_OFF), create=False)) as assembly:
            assembly.signer.ping()
            return Result(said | {"list": f"ok, {assembly.store.count()} rows", "clock": "ok"})
    except SystemUnavailable as error:
        part = "clock" if isinstance(error, ClockError) else "list"
        return Result(said | {part: f"{error.code}: {error}"}, exit_code=3)


def _check_trail(audit_log: str) -> None:
    # No file is created: the command may run as root, and the service could not write to a file of root.
    if audit_log in (STDOUT, AUDIT_OFF):
        return
    path = Path(audit_log).absolute()
    may_write = (
        os.access(path, os.W_OK) if os.path.lexists(path) else os.access(path.parent, os.W_OK | os.X_OK)
    )
    if not may_write or path.is_dir():
        raise ConfigurationError("AUDIT_LOG: the file cannot be written, or cannot be created in its folder.")


def _shown(settings: Settings) -> dict[str, Any]:
    ring = settings.keys
    shown: dict[str, Any] = {
        "SECRET_KEY": f"set, key id {ring.current.id}" if ring else "not set: development service",
        "SECRET_KEY_FALLBACKS": _fallbacks(ring) if ring else "none",
    }
    for name in settings.__struct_fields__:
        if name != "keys":
            shown[name.upper()] = _plain(getattr(settings, name))
    for name in ("database_url", "rate_limit_storage"):
        shown[name.upper()] = _without_secrets(getattr(settings, name))
    return shown


def _fallbacks(ring: KeyRing) -> str:
    ids = [kid for kid in ring.by_id if kid != ring.current.id]
    return f"{len(ids)} set, key ids {', '.join(ids)}" if ids else "none"


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    return ",".join(value) if isinstance(value, tuple) else value


def _without_secrets(url: str) -> str:
    if sqlite_path(url) or not url:
        return url
    # The URL of a server may hold a password, before its address or in its options: only the address is
    # shown. A password with an unencoded "?" or "#" looks like the end of the address: then nothing is shown.
    scheme, _, rest = url.partition("://")
    _, at, address = re.split("[?#]", rest, maxsplit=1)[0].rpartition("@")
    return f"{scheme}://{'…' if '@' in rest and not at else address}"


def _settings() -> Settings:
    settings = Settings.from_env(os.environ)
    if settings.is_development:
        print("signer: SECRET_KEY is not set: these are the development service's settings.", file=sys.stderr)
    return settings


def _asked(ask: Callable[[Signer], R], *, create: bool = False, only_reads: bool = False) -> R:
    # In a thread: a list on a disk that hangs blocks its caller, and the command must still end.
    def asked() -> R:
        with _signer(create=create, only_reads=only_reads) as signer:
            return ask(signer)

    return Asker(_ANSWER_TIMEOUT).ask(asked)


def _demands(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "scope": options.scope,
        "aud": options.aud,
        "bind": _bind(options),
        "max_age": options.max_age,
    }


@contextmanager
def _signer(*, create: bool = False, only_reads: bool = False) -> Iterator[Signer]:
    settings = _settings()
    if settings.audit_log == STDOUT:
        # Standard output is for the result only.
        settings = replace(settings, audit_log=AUDIT_OFF)
    keys_of(settings)  # first, so that a command without the service's key leaves no new list behind
    assembly = assemble(settings, create=create, only_reads=only_reads)
    # The id of a client cannot hold a colon, so the audit trail never confuses the two.
    origin.set(Origin(actor=f"signer:cli:{_user()}"))
    try:
        yield assembly.signer
    finally:
        assembly.close()


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container a user may have no name
        return str(os.getuid())


def _token() -> str:
    token = _input().strip()
    if not token:
        raise TokenMalformed("Standard input is empty: it must hold the token, as in `… < token.txt`.")
    return token


def _input() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        try:
            return getpass.getpass("Token: ")
        except EOFError:
            return ""
    raw = sys.stdin.buffer.read(_MAX_INPUT + 1)
    # A longer input is refused as malformed: a token must not be accepted because the rest was cut off.
    return raw.decode(errors="replace") if len(raw) <= _MAX_INPUT else "…"


def _bind(options: argparse.Namespace) -> str | None:
    if options.bind_file is None:
        return None
    try:
        return Path(options.bind_file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"--bind-file cannot be read: {reason}.") from None


def _said(claims: Claims) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(claims)
    for name in ("iat", "exp", "auth_time"):
        if name in said:
            said[f"{name}_utc"] = datetime.fromtimestamp(said[name], UTC).isoformat()
    return said
