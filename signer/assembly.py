"""From settings to a Signer with its list; where service and command line begin."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigurationError, KeyInvalid
from .keys import PRODUCTION_LINE, KeyRing, generate_key
from .settings import Settings
from .signer import Signer
from .stores import Store, open_store
from .stores.opening import MEMORY_URL, sqlite_path


class Assembly(NamedTuple):
    """A Signer, and its list, which whoever assembled it closes."""

    signer: Signer
    store: Store


def assemble(settings: Settings, *, create: bool = True) -> Assembly:
    """Open the list and make the Signer. With `create` False a list that is missing is an error.

    Raises:
        ConfigurationError: keys or list are set up wrongly.
        StoreError: the list cannot be opened.
    """
    store = open_store(settings.database_url, create=create)
    try:
        signer = Signer(
            keys_of(settings),
            store,
            ttl=settings.token_ttl_minutes * 60,
            max_ttl=settings.token_max_ttl_minutes * 60,
            leeway=settings.token_leeway_seconds,
            grace=settings.token_grace_seconds,
        )
    except BaseException:
        store.close()
        raise
    return Assembly(signer, store)


def keys_of(settings: Settings) -> KeyRing:
    """The keys that the settings name; the development service's own where they name none.

    Raises:
        ConfigurationError: they cannot be used.
    """
    return settings.keys or _development_keys(settings.database_url)


def _development_keys(database_url: str) -> KeyRing:
    if database_url == MEMORY_URL:
        return KeyRing(generate_key())
    path = sqlite_path(database_url)
    if not path:
        raise ConfigurationError(f"Set SECRET_KEY: {PRODUCTION_LINE}")
    path += ".key"
    try:
        return KeyRing(_kept_key(Path(path)))
    # UnicodeDecodeError is a ValueError, and not to be shown: it holds the file.
    except (OSError, ValueError, KeyInvalid) as error:
        reason = "it is not text" if isinstance(error, ValueError) else error
    raise KeyInvalid(f"The development key {path} cannot be used: {reason}")


def _kept_key(path: Path) -> str:
    # Made whole under another name, then linked: two first starts agree on one key.
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(generate_key())
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    if path.stat().st_mode & 0o077:
        raise KeyInvalid(f"Others may read the development key: chmod 600 {path}")
    return path.read_text(encoding="ascii").strip()
