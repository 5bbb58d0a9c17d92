"""What all local pages answer: the page itself, static files, and nothing without the link."""

import hmac
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import ClassVar, Generic, Protocol, TypeVar

from sightline._core.optional import requires_extra
from sightline.serving.http import Allowance, Headers, Joining, read_form, refuse, report_unavailable
from sightline.serving.store_file import NameTakenError

with requires_extra("rating", "a local page"):
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.routing import Route

MONTHS = 90 * 24 * 3600  # seconds that a browser remembers its person
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Visitor(Protocol):
    """A person who opened the page."""

    @property
    def secret(self) -> str | None:
        """Return what the person's own link carries."""

    @property
    def title(self) -> str:
        """Return what the page calls the person."""


Person = TypeVar("Person", bound=Visitor)


class Site(ABC, Generic[Person]):
    """A page behind a link with a token. Subclasses add routes and find people by their secrets.

    Args:
        id: a few letters that tell one store from another.
        token: what every link carries.
        join: lets a person of that name in, or raises `NameTakenError`; None = without a name.
        package: the package whose folder `page` holds the page.
        page: the name of the page's HTML, CSS and script, without suffix.

    Attributes:
        what: what the page shows, one word, as messages and the cookie call it.
        who: what a person is called in messages, the link and the cookie.
    """

    what: ClassVar[str]
    who: ClassVar[str]

    def __init__(self, id: str, token: str, join: Callable[[str | None], Person], package: str, page: str) -> None:
        self.token = token
        self._let_in = join
        self.joining = Allowance(60, 1)  # of all together: a class that begins at once, but no endless list
        # A cookie goes to every port of a host, so two stores on one machine need different names.
        self.token_cookie, self.person_cookie = f"{self.what}-{id}", f"{self.who}-{id}"
        folder, common = files(package) / "page", files("sightline.serving") / "static"
        reports = files("sightline.reporting") / "templates"
        self.html = (folder / f"{page}.html").read_bytes()
        self.static = {
            f"{page}.css": (reports / "report.css").read_bytes()
            + (common / "page.css").read_bytes()
            + (folder / f"{page}.css").read_bytes(),
            f"{page}.js": (common / "page.js").read_bytes() + (folder / f"{page}.js").read_bytes(),
            "icon.svg": (common / "icon.svg").read_bytes(),
        }

    @abstractmethod
    def routes(self) -> Sequence[Route]:
        """Return the routes that only this page has."""

    @abstractmethod
    def person(self, secret: str) -> Person | None:
        """Return the person of a secret; None where there is none."""

    def application(self) -> Starlette:
        """Return all of it as an ASGI application."""
        return Starlette(
            routes=[Route("/", self.show), Route("/static/{name}", self.file), *self.routes()],
            middleware=[Middleware(Headers)],
            exception_handlers={sqlite3.Error: report_unavailable, HTTPException: refuse},
        )

    async def show(self, request: Request) -> Response:
        """Return the page; a link's token and person go into cookies, and out of the address."""
        if "token" not in request.query_params:
            self.admit(request)
            return Response(self.html, media_type="text/html; charset=utf-8")
        if not self._is_token(request.query_params["token"]):
            raise HTTPException(403, f"This link's token is not that of the {self.what}.")
        answer = RedirectResponse("/", status_code=303)
        self._set_cookie(answer, self.token_cookie, self.token)
        if self.who in request.query_params:
            person = await run_in_threadpool(self.person, request.query_params[self.who])
            if person is None:
                raise HTTPException(403, f"This link's {self.who} is not one of the {self.what}.")
            self.remember(answer, person)
        return answer

    async def file(self, request: Request) -> Response:
        """Return the page's style, script or icon."""
        self.admit(request)
        if (name := request.path_params["name"]) not in self.static:
            raise HTTPException(404, "There is no such file.")
        return Response(self.static[name], media_type=f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")

    async def join(self, request: Request) -> Response:
        """Let the visitor begin. A browser that has begun stays the same person."""
        self.admit(request)
        wanted = await read_form(request, Joining)
        person = await self.find(request)
        if person is None:
            if not self.joining.take():
                raise HTTPException(429, "Too many people begin at once.", {"Retry-After": "5"})
            try:
                person = await run_in_threadpool(self._let_in, wanted.name or None)
            except NameTakenError:
                raise HTTPException(
                    409,
                    f"Someone called {wanted.name} has already begun. Continue with that person's link, or take another name.",
                ) from None
        answer = JSONResponse({self.who: person.title}, status_code=201)
        self.remember(answer, person)
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget who is in this browser, so another person can begin; what the person did stays."""
        self.admit(request)
        answer = JSONResponse({self.who: None})
        answer.delete_cookie(self.person_cookie, httponly=True, samesite="lax")
        return answer

    def admit(self, request: Request) -> None:
        """Reject a browser that did not come by the link."""
        if not self._is_token(request.cookies.get(self.token_cookie, "")):
            raise HTTPException(403, "This page opens by the link that you were given.")

    async def find(self, request: Request) -> Person | None:
        """Return the person whom the browser remembers; None where there is none."""
        return await run_in_threadpool(self.person, request.cookies.get(self.person_cookie, ""))

    def link(self, person: Person) -> str:
        """Return the person's own link, which continues in another browser."""
        return f"/?token={self.token}&{self.who}={person.secret}"

    def remember(self, answer: Response, person: Person) -> None:
        """Let the browser remember a person."""
        self._set_cookie(answer, self.person_cookie, str(person.secret))

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _set_cookie(self, answer: Response, cookie: str, value: str) -> None:
        answer.set_cookie(cookie, value, max_age=MONTHS, httponly=True, samesite="lax")
