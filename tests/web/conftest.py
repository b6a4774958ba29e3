"""The service as `uvicorn app:app` starts it."""

from collections.abc import Iterator

import pytest
from service import ROOT, Service


@pytest.fixture(scope="module")
def under_uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A development service under uvicorn's own command, with its own defaults."""
    command = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}")
    with Service(tmp_path_factory.mktemp("uvicorn"), command=command) as running:
        yield running
