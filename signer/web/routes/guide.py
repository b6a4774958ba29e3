"""The guide: the pages of signer/guide, which GitHub shows as they are and the service serves at /guide.

Markdown becomes HTML when a page is first asked for. HTML in it stays text, the pages run no script and load
nothing from another host, and their policy keeps it so.
"""

import asyncio
import html
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from posixpath import basename, join, normpath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from .pages import File, headers_of, sent

if TYPE_CHECKING:  # the library is loaded with the first page
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

#: The pages in the order of the list beside them. No other name is looked for.
PAGES: Final = (
    "start",
    "library",
    "frameworks",
    "tokens",
    "http",
    "oauth",
    "gateways",
    "many-machines",
    "operate",
    "incidents",
    "settings",
    "security",
    "performance",
    "changelog",
)
#: The page at /guide. GitHub shows a file of this name below a folder.
INDEX: Final = "README"
_FOLDER: Final = Path(__file__).parents[2] / "guide"
#: Where the pages are in the repository, which links to other files begin from.
_IN_REPOSITORY: Final = "signer/guide"
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading} · {title}</title>
<link rel="icon" type="image/png" href="{up}static/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="{up}static/guide.css">
</head>
<body>
<header><a href="{up}guide">{title} · Guide</a><a class="jump" href="#pages">All pages</a></header>
<main>
{content}{following}</main>
<nav id="pages" aria-label="Pages of the guide">
<ul>
{links}</ul>
<p><a href="{up}docs">Try the API</a> <a href="{up}redoc">API reference</a></p>
</nav>
</body>
</html>
"""


def guide_routes(title: str) -> list[BaseRoute]:
    """/guide and /guide/{page}; / and /guide/ lead there. `title` is the service's name, as text."""
    answer = _Guide(title).answer
    return [
        Route("/", _to("guide"), methods=["GET"]),
        Route("/guide", answer, methods=["GET"]),
        Route("/guide/", _to("../guide"), methods=["GET"]),
        Route("/guide/{page:text}", answer, methods=["GET"]),
    ]


def _to(path: str) -> Callable[[HTTPRequest], Awaitable[Response]]:
    async def answer(request: HTTPRequest) -> Response:
        # Relative, because a proxy may put a prefix before the path.
        return RedirectResponse(path)

    return answer


class _Heading(NamedTuple):
    """A heading of a page. The page's own has level 1."""

    level: int
    text: str


class _Guide:
    """The pages of one service, each made once."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._made: dict[str, File] = {}

    async def answer(self, request: HTTPRequest) -> Response:
        """GET /guide, GET /guide/{page}"""
        name = request.path_params.get("page", INDEX)
        if name not in PAGES and "page" in request.path_params:
            raise HTTPException(404)
        if name not in self._made:
            # In a thread: a page takes some ten milliseconds, and other requests do not wait for it.
            self._made[name] = await asyncio.to_thread(_file, name, self._title)
        return sent(request, *self._made[name])


def _file(name: str, title: str) -> File:
    content = rendered(name, title).encode()
    headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
    return content, headers_of(content, "text/html; charset=utf-8") | headers


def rendered(name: str, title: str) -> str:
    """The page `name`, one of PAGES or INDEX, as HTML. All its URLs are relative, because a proxy may put a
    prefix before the path."""
    markdown = _renderer()
    tokens = markdown.parse(_text(name))
    headings = [*_headings(tokens)]
    for token in tokens:
        if token.children:
            token.children = [*_linked(token.children, name)]
    return _PAGE.format(
        heading=html.escape(headings[0].text),
        title=html.escape(title),
        up="" if name == INDEX else "../",
        content=markdown.renderer.render(tokens, markdown.options, {}),
        following=_following(name),
        links="".join(_links(name, [heading for heading in headings if heading.level == 2])),  # noqa: PLR2004
    )


def slug(text: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@cache
def _text(name: str) -> str:
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8")


@cache
def _renderer() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    # What is wider than the window scrolls by itself, by keyboard too, and not the page.
    markdown.add_render_rule("fence", _code)
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide" tabindex="0"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return markdown


def _code(renderer: Any, tokens: "Sequence[Token]", index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    language = html.escape(token.info.partition(" ")[0])
    # What is typed stands out from what comes back.
    content = re.sub(r"^(\$ .*)$", r"<b>\1</b>", html.escape(token.content), flags=re.MULTILINE)
    return f'<pre class="{language}" tabindex="0"><code>{content}</code></pre>\n'


def _headings(tokens: "Sequence[Token]") -> Iterator[_Heading]:
    """Each heading, which gets its anchor."""
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            text = "".join(child.content for child in tokens[index + 1].children or ())
            token.attrSet("id", slug(text))
            yield _Heading(int(token.tag.removeprefix("h")), text)


def _linked(children: "list[Token]", name: str) -> "Iterator[Token]":
    """The inline tokens of the page `name`, whose links lead where the service has the same. A file that it
    does not serve is named instead, as code."""
    file = ""
    inside: list[Token] = []
    for token in children:
        if token.type == "link_open":
            target = str(token.attrs["href"])
            href = _href(target, name)
            if href is None:
                file, inside = normpath(join(_IN_REPOSITORY, target)), []
                continue
            token.attrSet("href", href)
        elif token.type == "link_close" and file:
            yield from _named(inside, file)
            file = ""
            continue
        if file:
            inside.append(token)
        else:
            yield token


def _href(target: str, name: str) -> str | None:
    """Where a link of the page `name` leads in the service; None to a file that is not served."""
    if re.match(r"https?:|#", target):
        return target
    path, mark, fragment = target.partition("#")
    page = path.removesuffix(".md")
    if page == INDEX:
        return f"../guide{mark}{fragment}"
    if page not in PAGES:
        return None
    return f"{'guide/' if name == INDEX else ''}{page}{mark}{fragment}"


def _named(inside: "list[Token]", file: str) -> "Iterator[Token]":
    from markdown_it.token import Token

    code = Token("code_inline", "code", 0, content=file)
    if "".join(token.content for token in inside) == basename(file):
        yield code
        return
    yield from inside
    yield from (Token("text", "", 0, content=" ("), code, Token("text", "", 0, content=")"))


def _following(name: str) -> str:
    """The link at the end of a page, to the next one."""
    page = next(iter(PAGES[PAGES.index(name) + 1 :] if name in PAGES else PAGES), None)
    return f'<p class="next">Next: <a href="{_href(page, name)}">{_title(page)}</a></p>\n' if page else ""


def _title(page: str) -> str:
    return html.escape(_text(page).partition("\n")[0].removeprefix("# "))


def _links(name: str, parts: list[_Heading]) -> Iterator[str]:
    """The list of all pages; under the page `name` its own headings, `parts`."""
    for page in PAGES:
        current = ' aria-current="page"' if page == name else ""
        inner = ""
        if current and parts:
            items = "".join(
                f'<li><a href="#{slug(part.text)}">{html.escape(part.text)}</a></li>' for part in parts
            )
            inner = f"<ul>{items}</ul>"
        yield f'<li><a href="{_href(page, name)}"{current}>{_title(page)}</a>{inner}</li>\n'
