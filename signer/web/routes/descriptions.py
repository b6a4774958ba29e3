"""What the docstring of a type says, for the API document: about the type, and about each of its members."""

import inspect
from collections.abc import Iterator
from typing import Any, Final, get_args

from msgspec import Struct
from msgspec.structs import fields

_ATTRIBUTES: Final = "\n\nAttributes:\n"


def about(kind: type[Struct]) -> str:
    """The docstring of a type, without the section on its members."""
    return (inspect.getdoc(kind) or "").partition(_ATTRIBUTES)[0]


def about_members(kind: type[Struct]) -> dict[str, str]:
    """What the section `Attributes:` of a type, and of its base classes, says about each member."""
    described: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        described |= _attributes(inspect.cleandoc(base.__doc__ or "").partition(_ATTRIBUTES)[2])
    return described


def _attributes(section: str) -> Iterator[tuple[str, str]]:
    joined = section.replace("\n        ", " ")
    for line in joined.splitlines():
        name, _, text = line.strip().partition(": ")
        yield name, text[:1].upper() + text[1:]


def types_in(kind: Any) -> Iterator[type[Struct]]:
    """The type, if it is a Struct, and those that its members or arguments consist of."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        yield kind
        for member in fields(kind):
            yield from types_in(member.type)
    for argument in get_args(kind):
        yield from types_in(argument)
