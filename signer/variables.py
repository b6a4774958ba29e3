"""Which environment variable a setting is taken from, and what it says.

The setting PORT is taken from `SIGNER_PORT`, or else from `PORT`: an application in the same environment may
have a `SECRET_KEY` or a `DATABASE_URL` of its own. Where SIGNER_PORT is set, PORT is ignored.

SECRET_KEY, SECRET_KEY_FALLBACKS and DATABASE_URL may also stand in a file, which `SECRET_KEY_FILE` or
`SIGNER_SECRET_KEY_FILE` names, and so on: a secret of Docker or Kubernetes, or a credential of systemd. An
environment is inherited by every child process and shown by `docker inspect`; a file is not. Each process
reads the files when it starts. To use a new content, restart the service or replace its workers.

SECRET_KEY and SECRET_KEY_FALLBACKS belong together. If one of them has the prefix, both are taken with the
prefix only: the fallbacks of another application must not verify our tokens, and its key must not sign them.
"""

import os
from collections.abc import Iterable, Mapping
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
    """A variable that is set, and the text of its setting: its value, or the content of the file it names."""

    name: str
    text: str

    @property
    def is_file(self) -> bool:
        """Whether it names a file."""
        return self.name.endswith(_FILE)


def find(environ: Mapping[str, str], setting: str) -> Variable | None:
    """What `environ` says of a setting, given by its plain name; None where it is not set.

    Raises:
        ConfigurationError: naming the variable: it is set twice, or its file cannot be used.
    """
    name = variable_name(environ, setting)
    if name is None:
        return None
    variable = Variable(name, environ[name])
    return Variable(name, _content(variable, setting)) if variable.is_file else variable


def variable_names(environ: Mapping[str, str], settings: Iterable[str]) -> dict[str, str]:
    """Of those of `settings` that are set, the variable that each is taken from. Reads no file.

    Raises:
        ConfigurationError: naming the two variables that say the same.
    """
    found = {setting: variable_name(environ, setting) for setting in settings}
    return {setting: name for setting, name in found.items() if name is not None}


def variable_name(environ: Mapping[str, str], setting: str) -> str | None:
    """The variable that a setting is taken from; None where it is not set.

    Raises:
        ConfigurationError: naming the two variables that say the same.
    """
    prefixes = (key_prefix(environ),) if setting in _KEYS else (PREFIX, "")
    for prefix in prefixes:
        if name := _with_prefix(environ, prefix, setting):
            return name
    return None


def key_prefix(environ: Mapping[str, str]) -> str:
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


def _content(variable: Variable, setting: str) -> str:
    try:
        text = _read(variable.text)
    # UnicodeDecodeError is a ValueError, and its text holds the content.
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    else:
        reason = _wrong(text, is_list=setting == FALLBACKS)
        if not reason:
            return text
    raise ConfigurationError(f"{variable.name}: the file {_shown(variable.text)} cannot be used: {reason}.")


def _read(path: str) -> str:
    # Not waiting: a pipe that nobody writes to would keep the service from starting, without a word.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not is_file(descriptor):
            raise OSError(0, "it is not a regular file")
        content = os.read(descriptor, MAX_SETTING_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_SETTING_FILE:
        raise OSError(0, f"it has more than {MAX_SETTING_FILE} bytes")
    return content.decode().removesuffix("\n")


def _wrong(text: str, *, is_list: bool) -> str:
    if is_list:  # it may be empty, so that it can be there before the first change of a key
        return ""
    if not text.strip():
        return "it is empty"
    return "it must hold one line" if "\n" in text else ""


def _shown(path: str) -> str:
    # The secret itself may have been put where its file's name belongs: then it is not repeated.
    if not path:
        return "'' (no path)"
    return repr(path) if path.startswith("/") or os.path.lexists(path) else "of that relative path"
