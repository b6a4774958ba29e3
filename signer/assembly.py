"""Make a Signer and its revocation list from the settings; service and command line begin here."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .audit import AuditTrail
from .errors import ConfigurationError, KeyInvalid
from .events import CountingHook, Hook
from .files import make_whole
from .settings import AUDIT_OFF, Settings
from .signer import Signer
from .stores import Store, open_store
from .stores.opening import MEMORY_URL, is_remote, sqlite_path
from .tokens.keys import PRODUCTION_LINE, KeyRing, generate_key


class Assembly(NamedTuple):
    """A Signer, its revocation list and its audit trail, or None. The caller of `assemble` closes them."""

    signer: Signer
    store: Store
    trail: AuditTrail | None

    def close(self) -> None:
        """Close files and connections."""
        self.store.close()
        if self.trail:
            self.trail.close()


def assemble(
    settings: Settings,
    *,
    create: bool = True,
    create_key: bool = False,
    copies: bool = False,
    only_reads: bool = False,
    node: Path | None = None,
    hooks: Sequence[Hook | CountingHook] = (),
    watched: Callable[[Store], Store] = lambda store: store,
) -> Assembly:
    """Open the revocation list and the audit trail, and make the Signer.

    Args:
        create: whether a missing list is created; False makes it an error.
        create_key: whether a missing key of the development service is created; False makes it an error.
        copies: whether a list on another machine is copied to memory, as REVOCATION_STALENESS_SECONDS allows.
        only_reads, node: as for open_store.
        hooks: are notified of every call, after the audit trail.
        watched: wraps the list, for example to measure it.

    Raises:
        ConfigurationError: keys, list or audit trail are configured wrongly.
        StoreError: the list cannot be opened.
    """
    with ExitStack() as opened:
        trail = _trail(settings)
        if trail:
            opened.callback(trail.close)
        # A program that asks once needs no copy. But a list behind https:// can be used only as a copy.
        has_copy = copies or is_remote(settings.database_url)
        staleness = settings.revocation_staleness_seconds if has_copy else None
        store = watched(
            open_store(
                settings.database_url, create=create, staleness=staleness, only_reads=only_reads, node=node
            )
        )
        opened.callback(store.close)
        signer = Signer(
            keys_of(settings, create=create_key),
            store,
            ttl=settings.token_ttl_minutes * 60,
            max_ttl=settings.token_max_ttl_minutes * 60,
            leeway=settings.token_leeway_seconds,
            grace=settings.token_grace_seconds,
            hooks=[trail, *hooks] if trail else hooks,
        )
        opened.pop_all()
        return Assembly(signer, store, trail)


def _trail(settings: Settings) -> AuditTrail | None:
    if settings.audit_log == AUDIT_OFF:
        return None
    return AuditTrail(settings.audit_log, validations=settings.audit_validations)


def keys_of(settings: Settings, *, create: bool = False) -> KeyRing:
    """The keys from the settings. Without SECRET_KEY, the key of the development service, which is kept
    beside the list. Only that service creates it: a command that lacks its settings must not go on with a new
    key.

    Raises:
        ConfigurationError: there is no usable key.
    """
    return settings.keys or _development_keys(settings.database_url, create=create)


def _development_keys(database_url: str, *, create: bool) -> KeyRing:
    if database_url == MEMORY_URL and create:
        return KeyRing(generate_key())
    path = sqlite_path(database_url)
    if not path and create:
        raise ConfigurationError(f"Set SECRET_KEY: {PRODUCTION_LINE}")
    path += ".key"
    if not create and not os.path.lexists(path):
        raise KeyInvalid(
            "SECRET_KEY is not set, and no development service has run here: a command needs the settings of"
            f" the service. For production: {PRODUCTION_LINE}"
        )
    try:
        return KeyRing(_kept_key(Path(path)))
    # UnicodeDecodeError is a ValueError. Its text is not shown, because it holds the content of the file.
    except (OSError, ValueError, KeyInvalid) as error:
        reason = "it is not text" if isinstance(error, ValueError) else error
    raise KeyInvalid(f"The development key {path} cannot be used: {reason}")


def _kept_key(path: Path) -> str:
    # Whole at once: when two services start first at the same time, they get one key, and neither reads half
    # of it.
    if not path.exists():
        make_whole(path, lambda draft: draft.write_text(generate_key(), encoding="ascii"))
    if path.stat().st_mode & 0o077:
        raise KeyInvalid(f"Others may read the development key: chmod 600 {path}")
    return path.read_text(encoding="ascii").strip()
