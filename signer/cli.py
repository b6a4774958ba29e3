"""The command line: `python -m signer` and `signer`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

from .assembly import assemble, keys_of
from .credentials import SERVICE_SCOPES, issue_credential
from .errors import SignerError
from .keys import generate_key
from .settings import Settings
from .signer import Signer

_UNITS: Final = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 refused, 2 called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        print(_run(options))
    except SignerError as error:
        print(f"signer: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    if options.command == "keygen":
        return generate_key()
    settings = Settings.from_env(os.environ)
    if settings.is_development:
        print("signer: SECRET_KEY is not set: this is for the development service here.", file=sys.stderr)
    if options.command == "purpose-key":
        return Signer(keys_of(settings)).purpose_key(options.purpose)
    assembly = assemble(settings)
    try:
        return issue_credential(assembly.signer, options.name, options.scope, options.ttl)
    finally:
        assembly.store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("signer", description="Stateless signed tokens.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("keygen", help="print a new key for SECRET_KEY")
    purpose_key = commands.add_parser(
        "purpose-key",
        help="print the key of one purpose",
        description="Print the key of one purpose, for a Verifier. It is a secret: whoever has it can check"
        " and make tokens of this purpose, and of no other.",
    )
    purpose_key.add_argument("purpose", metavar="PURPOSE")
    client = commands.add_parser(
        "client",
        help="print a client credential",
        description="Print a credential for calling the service, alone on standard output.",
        epilog=f"Scopes of the service: {' '.join(sorted(SERVICE_SCOPES))}. Any other word is one that the"
        " client may hand out. Example: signer client cron --scope token:purge --ttl 90d",
    )
    client.add_argument("name", metavar="NAME", help="the client's id, in A-Z a-z 0-9 . _ ~ -")
    client.add_argument("--scope", required=True, help="what it may do, space-separated")
    client.add_argument("--ttl", type=_duration, required=True, help="how long: 90d, 12h, 30m, 45s")
    return parser


def _duration(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError("write a number and a unit: 90d, 12h, 30m or 45s")
    return int(match[1]) * _UNITS[match[2]]
