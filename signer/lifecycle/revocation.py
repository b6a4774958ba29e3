"""Revoking tokens, one by one and by group, and deleting the rows of those that have expired."""

import time
from collections.abc import Iterator

from ..policy import PURGE_MARGIN, PURGE_PAUSE, PURGE_STEP
from ..stores import names
from ..stores.contract import Entry
from ..tokens.claims import Claims, started
from .chains import may_have_kin
from .core import Core, check_owner


def revoke(core: Core, token: str, client_id: str | None) -> Claims:
    """See Signer.revoke."""
    with core.hooks.operation("revoke") as operation:
        store = core.required_store()
        claims = operation.about(core.codec.decode(token))
        check_owner(claims, client_id)
        core.begin(operation)
        entry = store.revoke(names.row(claims), claims.exp, names.chain_groups(claims))
        if may_have_kin(claims, entry) and not _is_ended(core, claims, entry):
            core.advance(names.by_chain(claims))
        return claims


def _is_ended(core: Core, claims: Claims, entry: Entry) -> bool:
    # To end a chain again would end what was issued since under the same `sid`.
    return claims.gen < entry.generation or started(claims) + core.max_ttl < entry.horizon


def revoke_groups(core: Core, *groups: str, **about: str) -> None:
    """Refuse every token of these groups that was issued until now. `about` says so to the hooks, by the
    names of an Event's fields."""
    with core.hooks.operation("revoke") as operation:
        operation.note(**about)
        core.required_store()
        core.begin(operation)
        for group in groups:
            core.advance(group)


def purge(core: Core) -> int:
    """See Signer.purge."""
    total = 0
    for step in purge_steps(core):
        total += step
        time.sleep(PURGE_PAUSE)
    return total


def purge_steps(core: Core) -> Iterator[int]:
    """See Signer.purge_steps."""
    with core.hooks.operation("purge") as operation:
        store = core.required_store()
        rows, step = 0, PURGE_STEP
        core.begin(operation)
        while step == PURGE_STEP:
            step = store.purge(int(core.admission.now()) - core.leeway - PURGE_MARGIN)
            rows += step
            operation.note(rows=rows)
            yield step
