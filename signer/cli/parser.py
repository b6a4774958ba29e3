"""The command line, `python -m signer` or `signer`: its arguments, output and exit codes.

The commands themselves are in commands.py.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias, cast

from .. import __version__
from ..credentials import SERVICE_SCOPES
from ..errors import SignerError
from ..exits import exit_code, say
from . import commands
from .commands import Result

_UNITS: Final = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
#: Adds a command, and returns its parser: its name, what it runs, and the beginning and the end of its help.
_Adder: TypeAlias = Callable[[str, Any, str, str], argparse.ArgumentParser]
_EXIT_CODES: Final = """
exit codes: 0 done; 1 refused, such as a token that is not valid; 2 called or configured wrongly;
3 revocation list, clock or audit trail cannot answer now: try again.
"""
_EXAMPLES: Final = """
examples:
  signer keygen > signer.key
  signer client billing --scope "token:issue read" --ttl 90d
  signer issue --sub 42 --scope read --ttl 15m
  signer validate --purpose access < token.txt && echo good
  signer revoke --sub 42
  signer check

Tokens are read from standard input, so that they do not appear in the shell's history or in process lists.
Settings are those of the service: environment variables, such as SIGNER_SECRET_KEY or SECRET_KEY. The
service may be running.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser(given)
    options, more = parser.parse_known_args(given)
    if more:
        parser.error(_unexpected(more))
    try:
        result: Result = options.run(options)
    except SignerError as error:
        return _refused(error, as_json=options.json)
    except KeyboardInterrupt:
        return 130
    try:
        print(_answer(result, as_json=options.json), flush=True)
    except OSError as error:
        print(f"signer: the answer cannot be written: {error.strerror}.", file=sys.stderr)
        # Python would try to write the rest at exit, and report the error once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 3
    return result.exit_code


def _answer(result: Result, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(result.said)
    return _table(result.said) if result.alone is None else result.alone


def _refused(error: SignerError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"status": False, "code": error.code, "detail": str(error)}))
    else:
        say(error)
    return exit_code(error)


def _table(said: dict[str, Any]) -> str:
    width = max(map(len, said), default=0)
    return "\n".join(f"{name:{width}}  {_text(value)}" for name, value in said.items())


def _text(value: Any) -> str:
    # JSON escapes control characters, which a terminal would obey.
    return (value or "-") if isinstance(value, str) and value.isprintable() else json.dumps(value)


class _Parser(argparse.ArgumentParser):
    """Its errors repeat no argument: it may be a token, and standard error ends up in logs.

    Args:
        given: all arguments of the command line.
    """

    def __init__(self, given: Sequence[str], **kwargs: Any) -> None:
        # An abbreviated option would change its meaning when a new option begins with the same letters.
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
        self._given = given

    def error(self, message: str) -> NoReturn:
        for word in self._given:
            # It may stand alone, behind "=" or directly behind "-o".
            for value in (word, word.partition("=")[2], word[2:]):
                message = message.replace(repr(value), "…") if value else message
        super().error(message)


def _unexpected(arguments: Sequence[str]) -> str:
    options = [word.partition("=")[0] for word in arguments]
    if names := [name for name in options if re.fullmatch("--[a-z]+(-[a-z]+)*", name)]:
        return f"no such option: {', '.join(names)}"
    return "an argument too many: a token is read from standard input, not from the command line"


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        given, prog="signer", description="Stateless signed tokens.", epilog=_EXAMPLES + _EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"signer {__version__}")
    command = _adder(parser.add_subparsers(metavar="COMMAND", required=True), given)
    for add in (_add_keys, _add_client, _add_issue, _add_checks, _add_revoke, _add_list, _add_service):
        add(command)
    return parser


def _adder(every: Any, given: Sequence[str]) -> _Adder:
    def add(name: str, run: Any, summary: str, epilog: str) -> argparse.ArgumentParser:
        sentence = f"{summary[0].upper()}{summary[1:]}."
        added = every.add_parser(name, given=given, help=summary, description=sentence, epilog=epilog)
        added.add_argument("--json", action="store_true", help="print one JSON object, for programs")
        added.set_defaults(run=run)
        return cast(argparse.ArgumentParser, added)

    return add


def _add_keys(command: _Adder) -> None:
    command("keygen", commands.keygen, "print a new key for SECRET_KEY", "signer keygen > signer.key")
    added = command(
        "purpose-key",
        commands.purpose_key,
        "print the key of one purpose, for a Verifier",
        "Keep it secret: with it one can validate and make tokens of this purpose, and of no other.\n"
        "signer purpose-key access > access.key",
    )
    added.add_argument("purpose", metavar="PURPOSE")


def _add_client(command: _Adder) -> None:
    added = command(
        "client",
        commands.client,
        "print a client credential, for calling the service",
        f"Scopes of the service: {' '.join(sorted(SERVICE_SCOPES))}.\n"
        "Any other word is a scope that the client may give to the tokens it issues.\n"
        "signer client cron --scope token:purge --ttl 90d",
    )
    added.add_argument("name", metavar="NAME", help="the client's id, in A-Z a-z 0-9 . _ ~ -")
    added.add_argument("--scope", required=True, help="what it may do, as space-separated words")
    added.add_argument(
        "--ttl", type=_duration, required=True, help="how long it is valid: 90d, 12h, 30m, 45s"
    )


def _add_issue(command: _Adder) -> None:
    added = command(
        "issue",
        commands.issue,
        "print a new token",
        'signer issue --purpose verify-email --sub 42 --ttl 1d --data \'{"email": "a@example.org"}\'',
    )
    added.add_argument("--purpose", default="access", help="what it is for (default: access)")
    added.add_argument("--sub", help="the subject, such as a user's id")
    added.add_argument("--ttl", type=_duration, help="how long it is valid: 90d, 12h, 30m, 45s")
    added.add_argument("--sid", help="the session it belongs to")
    added.add_argument("--data", type=_json, metavar="JSON", help="data of your own, which it carries")
    added.add_argument("--max-uses", type=int, metavar="N", help="how often it may be consumed")
    _add_demands(added)


def _add_checks(command: _Adder) -> None:
    validate = command(
        "validate",
        commands.validate,
        "print whether the token on standard input is valid, and its claims",
        "signer validate --purpose access --scope read < token.txt",
    )
    validate.add_argument("--purpose", help="the purpose it must have (default: any)")
    consume = command(
        "consume",
        commands.consume,
        "validate the token on standard input, and use it once",
        "signer consume --purpose verify-email < token.txt",
    )
    consume.add_argument("--purpose", default="access", help="the purpose it must have (default: access)")
    for added in (validate, consume):
        added.add_argument("--max-age", type=_duration, help="refuse an older token: 12h, 30m, 45s")
        _add_demands(added)
    command(
        "inspect",
        commands.inspect,
        "print the claims of the token on standard input, without verifying it",
        "signer inspect < token.txt",
    )


def _add_demands(added: argparse.ArgumentParser) -> None:
    added.add_argument("--scope", help="scopes, as space-separated words")
    added.add_argument("--aud", help="the audience")
    added.add_argument("--bind-file", metavar="FILE", help="the file whose whole content it is bound to")


def _add_revoke(command: _Adder) -> None:
    added = command(
        "revoke",
        commands.revoke,
        "revoke the token on standard input, or the tokens that an option names",
        "signer revoke < token.txt\nsigner revoke --sub 42",
    )
    named = added.add_mutually_exclusive_group()
    named.add_argument("--jti", help="the token with this id")
    named.add_argument("--sub", help="all tokens of this subject")
    named.add_argument("--sid", help="all tokens of this session")
    named.add_argument("--client-id", help="all credentials of this client, and the tokens it issued")


def _add_list(command: _Adder) -> None:
    command(
        "purge",
        commands.purge,
        "delete the rows of expired tokens from the revocation list",
        "signer purge   (hourly, from cron, with the service's settings; the service may be running)",
    )
    command(
        "create-list",
        commands.create_list,
        "create an empty revocation list, where there is none",
        "signer create-list   (once, before a service on a database server starts for the first time; or\n"
        "after the list was lost, if no token that was revoked on it matters any more)",
    )
    added = command(
        "backup",
        commands.backup,
        "copy the revocation list to a new file, while the service runs",
        'signer backup "/backup/tokens-$(date +%F).db"',
    )
    added.add_argument("file", metavar="FILE", help="the new file, which must not exist")


def _add_service(command: _Adder) -> None:
    command(
        "serve",
        commands.serve,
        "serve over HTTP, as python app.py does",
        "SECRET_KEY=… signer serve; SIGTERM ends it, SIGHUP reopens AUDIT_LOG, SIGUSR2 replaces its workers",
    )
    command(
        "check",
        commands.check,
        "print the settings in force and where they are from, without secrets; test list and clock",
        "signer check   (as the service's user and with its settings, once the list exists)",
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError("write JSON, such as '{\"a\": 1}'") from None


def _duration(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError("write a number and a unit: 90d, 12h, 30m or 45s")
    return int(match[1]) * _UNITS[match[2]]
