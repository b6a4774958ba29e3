"""Which environment variable a setting is taken from, and what it says.

The setting PORT is taken from `SIGNER_PORT`, or else from `PORT`: an application in the same environment may
have a `SECRET_KEY` or a `DATABASE_URL` of its own. Where SIGNER_PORT is set, PORT is ignored.

SECRET_KEY, SECRET_KEY_FALLBACKS and DATABASE_URL may also stand in a file, which `SECRET_KEY_FILE` or
`SIGNER_SECRET_KEY_FILE` names, and so on: a secret of Docker or Kubernetes, or a credential of systemd. An
environment is inherited by every child process and shown by `docker inspect`; a file is not. The service
reads the files once, when it starts, and passes the texts to its workers. If each worker read them, a file
that changes would give two workers of one service two keys, or two lists.

SECRET_KEY and SECRET_KEY_FALLBACKS belong together. If one of them has the prefix, both are taken with the
prefix only: the fallbacks of another application must not verify our tokens, and its key must not sign them.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from .errors import ConfigurationError
from .files import is_file
from .policy import MAX_SETTING_FILE

PREFIX: Final = "SIGNER_"
SECRET_KEY: Final = "SECRET_KEY"  # noqa: S105 - a name, not a secret
FALLBACKS: Final = "SECRET_KEY_FALLBACKS"
_KEYS: Final = (SECRET_KEY, FALLBACKS)
_MAY_BE_FILES: Final = (*_KEYS, "DATABASE_URL")
_FILE: Final = "_FILE"


class Variable(NamedTuple):
    """A variable that is set, and the text of its setting: its value, or the content of the file it names.
    Its repr shows only the name, because the text may be secret."""

    name: str
    text: str

    def __repr__(self) -> str:
        return f"Variable({self.name})"

    @property
    def is_file(self) -> bool:
        """Whether it names a file."""
        return self.name.endswith(_FILE)


def read(environ: Mapping[str, str], settings: Iterable[str]) -> dict[str, Variable]:
    """What `environ` and its files say of those of `settings`, by their plain names, that are set.

    Raises:
        ConfigurationError: naming the variable: it is set twice, or its file cannot be used.
    """
    names = variable_names(environ, settings)
    return {setting: _read(Variable(name, environ[name]), setting) for setting, name in names.items()}


def variable_names(environ: Mapping[str, str], settings: Iterable[str]) -> dict[str, str]:
    """Of those of `settings` that are set, the variable that each is taken from. Reads no file.

    Raises:
        ConfigurationError: naming the two variables that say the same.
    """
    found = {setting: _variable_name(environ, setting) for setting in settings}
    return {setting: name for setting, name in found.items() if name is not None}


def _variable_name(environ: Mapping[str, str], setting: str) -> str | None:
    """The variable that a setting is taken from; None where it is not set.

    Raises:
        ConfigurationError: naming the two variables that say the same.
    """
    prefixes = (_key_prefix(environ),) if setting in _KEYS else (PREFIX, "")
    for prefix in prefixes:
        if name := _with_prefix(environ, prefix, setting):
            return name
    return None


def _key_prefix(environ: Mapping[str, str]) -> str:
    """The prefix, or none, with which SECRET_KEY and SECRET_KEY_FALLBACKS are taken."""
    return (
        PREFIX
        if any(_is_set(environ, f"{PREFIX}{name}{end}") for name in _KEYS for end in ("", _FILE))
        else ""
    )


def _with_prefix(environ: Mapping[str, str], prefix: str, setting: str) -> str | None:
    ends = ("", _FILE) if setting in _MAY_BE_FILES else ("",)
    names = [f"{prefix}{setting}{end}" for end in ends if _is_set(environ, f"{prefix}{setting}{end}")]
    if len(names) > 1:
        raise ConfigurationError(f"{' and '.join(names)} are both set: set one of them.")
    return names[0] if names else None


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    # Kubernetes and Docker set it for containers beside a service called "signer": "tcp://10.0.0.1:8000".
    if name == f"{PREFIX}PORT" and "://" in environ.get(name, ""):
        return False
    return name in environ


def _read(variable: Variable, setting: str) -> Variable:
    if not variable.is_file:
        return variable
    try:
        text = _content(variable.text)
    # UnicodeDecodeError is a ValueError, and its text holds the content.
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    else:
        if setting == FALLBACKS:
            # One a line, or with commas. It may be empty, so that it can be there before the first change of
            # a key.
            return Variable(variable.name, ",".join(text.splitlines()))
        reason = _wrong(text)
        if not reason:
            return Variable(variable.name, text)
    raise ConfigurationError(f"{variable.name}: the file {_shown(variable.text)} cannot be used: {reason}.")


def _content(path: str) -> str:
    # O_NONBLOCK, because to open a pipe without a writer would block the start, without any message.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not is_file(descriptor):
            raise OSError(0, "it is not a regular file")
        content = os.read(descriptor, MAX_SETTING_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_SETTING_FILE:
        raise OSError(0, f"it has more than {MAX_SETTING_FILE} bytes")
    return content.decode().removesuffix("\n").removesuffix("\r")


def _wrong(text: str) -> str:
    if not text.strip():
        return "it is empty"
    return "" if is_plain(text) else "it must hold one line, without blanks around it"


def is_plain(text: str) -> bool:
    """Whether a text is of printable characters, without blanks around it. A carriage return or a byte order
    mark, which some editors add, would make another key of a key, and name another list."""
    return text.isprintable() and text == text.strip()


def _shown(path: str) -> str:
    # The secret itself may stand where the path of its file belongs, and may begin with a slash. Then it must
    # not be repeated.
    folder = Path(path).parent
    is_beside_others = folder.is_absolute() and folder != Path("/") and folder.is_dir()
    if is_beside_others or os.path.lexists(path):
        return repr(path)
    return "that it names" if path else "'' (no path)"
