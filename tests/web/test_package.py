"""The drawing of the two ways of a request, in the docstring of signer.web."""

import importlib
import re
from pathlib import Path

from signer import web

DRAWING, FOLDERS = str(web.__doc__).split("Folders:")


def test_what_the_drawing_names_is_there() -> None:
    """Modules, classes and methods."""
    named = re.findall(r"(?<![/\w])([a-z]+)/([a-z]+)((?:\.[A-Za-z_]+)*)", DRAWING)
    assert len(named) > 8
    for folder, module, names in named:
        found = importlib.import_module(f"signer.web.{folder}.{module}")
        for name in names.split(".")[1:]:
            found = getattr(found, name)


def test_every_folder_is_explained() -> None:
    """Each has one line."""
    package = Path(str(web.__file__)).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^    ([a-z]+)/ ", FOLDERS, re.MULTILINE)) == folders
