"""Opening the list that a URL names."""

import sys
from pathlib import Path

import pytest

from signer import open_store
from signer.errors import ConfigurationError, StoreError


@pytest.mark.parametrize(
    "url",
    ["", "tokens.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db", "memory", "memory://x",
     "redis://localhost/x", "redis+cluster://h:1/1", "redis+sentinel://h:1", "redis://h?timeout=9", "redis://user@h", "mysql://x/y", "sqlite:///x.db?cache=shared", "sqlite:///x.db?mode=ro", "sqlite://[", "redis://["],
)  # fmt: skip
def test_what_names_no_list_is_refused(url: str) -> None:
    """The message names the known kinds."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        open_store(url)


def test_a_path_may_be_relative_absolute_and_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes and a path. Other characters are percent-encoded."""
    monkeypatch.chdir(tmp_path)
    for url, name in (
        ("sqlite:///./a.db", "a.db"),
        (f"sqlite:///{tmp_path}/b.db", "b.db"),
        ("sqlite:///c%3F%20d", "c? d"),
    ):
        open_store(url).close()
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "url", ["sqlite:///a%00b", "sqlite:///a\udcff", "sqlite:///no/such/folder/x.db", "sqlite:////"]
)
def test_a_path_that_no_file_can_have_is_our_own_error(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a ValueError of the operating system, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError):
        open_store(url)
    assert not list(tmp_path.iterdir())


def test_mode_rw_asks_for_a_list_that_is_there(tmp_path: Path) -> None:
    """A lost list must not come back empty."""
    with pytest.raises(StoreError, match="There is no list"):
        open_store(f"sqlite:///{tmp_path}/list.db?mode=rw")
    assert not list(tmp_path.iterdir())
    open_store(f"sqlite:///{tmp_path}/list.db?mode=rwc").close()
    open_store(f"sqlite:///{tmp_path}/list.db?mode=rw").close()


def test_a_list_without_its_driver_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says how to install it."""
    for name in [name for name in sys.modules if name.startswith("signer.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'signer-tokens\[postgres\]'") as caught:
        open_store("postgresql://u:secret@host/db")
    assert "secret" not in str(caught.value)
