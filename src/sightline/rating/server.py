"""The page that raters see, and what it may be asked."""

import hmac
import ipaddress
import socket
import sqlite3
from collections.abc import Callable
from importlib.resources import files

import torch

from sightline._core.optional import requires_extra
from sightline._core.seeding import derive_seed, generator
from sightline.errors import SightlineError
from sightline.rating.connections import TimedProtocol
from sightline.rating.http import Allowance, Headers, Joining, Place, Voting, read_form, refuse, report_unavailable
from sightline.rating.store import Choice, NameTakenError, Part, Rater, Side, Store

with requires_extra("rating", "the rating page"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.routing import Route

MONTHS = 90 * 24 * 3600  # seconds that a browser remembers its rater


def first_side(seed: int, rater: int, pair: int) -> Side:
    """Whose map a rater sees first: a coin for every rater and pair."""
    return "ab"[derive_seed(seed, "side", rater, pair) % 2]  # type: ignore[return-value]


def order(seed: int, rater: int, pairs: int) -> list[int]:
    """In which order a rater sees the pairs, so that no pair is always the one that all are tired at."""
    return torch.randperm(pairs, generator=generator(seed, "order", rater)).tolist()


class Page:
    """The answers to the page's requests.

    Args:
        store: the study.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seed = int(store.facts["seed"])
        self.joining = Allowance(60, 1)  # of all together: a class that begins at once, but no endless list
        self.voting: dict[int, Allowance] = {}
        # A cookie goes to every port of a host, so two studies on one machine need names of their own.
        self.token_cookie, self.rater_cookie = f"study-{store.id}", f"rater-{store.id}"
        room, reports = files("sightline.rating") / "page", files("sightline.reporting") / "templates"
        self.html = (room / "rate.html").read_bytes()
        self.static = {
            "rate.css": ((reports / "report.css").read_bytes() + (room / "rate.css").read_bytes(), "text/css"),
            "rate.js": ((room / "rate.js").read_bytes(), "text/javascript"),
            "icon.svg": ((room / "icon.svg").read_bytes(), "image/svg+xml"),
        }

    def application(self) -> Starlette:
        """All of it as an ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.show),
                Route("/static/{name}", self.file),
                Route("/picture/{name}", self.picture),
                Route("/state", self.state),
                Route("/join", self.join, methods=["POST"]),
                Route("/leave", self.leave, methods=["POST"]),
                Route("/vote", self.vote, methods=["POST"]),
            ],
            middleware=[Middleware(Headers)],
            exception_handlers={sqlite3.Error: report_unavailable, HTTPException: refuse},
        )

    async def show(self, request: Request) -> Response:
        """The page; a link's token and rater go into cookies, and out of the address."""
        if "token" not in request.query_params:
            self._admit(request)
            return Response(self.html, media_type="text/html; charset=utf-8")
        if not self._is_token(request.query_params["token"]):
            raise HTTPException(403, "This link's token is not that of the study.")
        answer = RedirectResponse("/", status_code=303)
        self._remember(answer, self.token_cookie, self.store.token)
        if "rater" in request.query_params:
            rater = await run_in_threadpool(self.store.rater, request.query_params["rater"])
            if rater is None:
                raise HTTPException(403, "This link's rater is not one of the study.")
            self._remember(answer, self.rater_cookie, str(rater.secret))
        return answer

    async def file(self, request: Request) -> Response:
        """The page's style and script."""
        self._admit(request)
        if (name := request.path_params["name"]) not in self.static:
            raise HTTPException(404, "There is no such file.")
        content, kind = self.static[name]
        return Response(content, media_type=f"{kind}; charset=utf-8")

    async def picture(self, request: Request) -> Response:
        """A picture by its name in the study's file; nothing is ever read by a path."""
        self._admit(request)
        jpeg = await run_in_threadpool(self.store.picture, request.path_params["name"])
        if jpeg is None:
            raise HTTPException(404, "There is no such picture.")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    async def state(self, request: Request) -> Response:
        """How far the rater is: the pairs in this rater's order and sides, with the answers given."""
        self._admit(request)
        if (rater := await self._find(request)) is None:
            return JSONResponse({"rater": None, "total": len(self.store.pairs)})
        given = {vote.pair: vote for vote in await run_in_threadpool(self.store.votes, rater)}
        pairs = []
        for number in order(self.seed, rater.rater, len(self.store.pairs)):
            pair, first = self.store.pairs[number], first_side(self.seed, rater.rater, number)
            choice = given[number].choice if number in given else None
            sides: dict[str, Part] = {"first": first, "second": _other(first)}
            pairs.append({
                "pair": number,
                "label": pair.label,
                "image": pair.names["image"],
                **{place: pair.names[side] for place, side in sides.items()},
                "choice": "same" if choice == "same" else next((p for p, side in sides.items() if side == choice), None),
            })  # fmt: skip
        link = f"/?token={self.store.token}&rater={rater.secret}"
        return JSONResponse({"rater": rater.title, "link": link, "total": len(pairs), "pairs": pairs})

    async def join(self, request: Request) -> Response:
        """Make whoever asks a rater. A browser that is one already stays the same."""
        self._admit(request)
        wanted = await read_form(request, Joining)
        rater = await self._find(request)
        if rater is None:
            if not self.joining.take():
                raise HTTPException(429, "Too many people begin at once.", {"Retry-After": "5"})
            try:
                rater = await run_in_threadpool(self.store.join, wanted.name or None)
            except NameTakenError:
                raise HTTPException(
                    409,
                    f"Someone called {wanted.name} has begun already. Go on by that person's own link, or take another name.",
                ) from None
        answer = JSONResponse({"rater": rater.title}, status_code=201)
        self._remember(answer, self.rater_cookie, str(rater.secret))
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget who rates in this browser, so that another person can begin; the votes stay."""
        self._admit(request)
        answer = JSONResponse({"rater": None})
        answer.delete_cookie(self.rater_cookie, httponly=True, samesite="lax")
        return answer

    async def vote(self, request: Request) -> Response:
        """Keep a vote. The answer goes out when the vote is on the disk."""
        self._admit(request)
        if (rater := await self._find(request)) is None:
            raise HTTPException(403, "This browser has not begun yet, so nobody's vote can be counted.")
        if not self.voting.setdefault(rater.rater, Allowance(20, 4)).take():
            raise HTTPException(429, "That is faster than anyone can look.", {"Retry-After": "2"})
        voting = await read_form(request, Voting)
        if voting.pair not in self.store.pairs:
            raise HTTPException(404, f"There is no pair {voting.pair} in this study.")
        first = first_side(self.seed, rater.rater, voting.pair)
        choice: dict[Place, Choice] = {"first": first, "second": _other(first), "same": "same"}
        await run_in_threadpool(self.store.vote, voting.pair, rater, choice[voting.choice], first)
        return JSONResponse({"pair": voting.pair, "choice": voting.choice})

    def _admit(self, request: Request) -> None:
        """Refuse a browser that did not come by the study's link."""
        if not self._is_token(request.cookies.get(self.token_cookie, "")):
            raise HTTPException(403, "This page opens by the link that you were given.")

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.store.token.encode())

    async def _find(self, request: Request) -> Rater | None:
        return await run_in_threadpool(self.store.rater, request.cookies.get(self.rater_cookie, ""))

    def _remember(self, answer: Response, cookie: str, value: str) -> None:
        answer.set_cookie(cookie, value, max_age=MONTHS, httponly=True, samesite="lax")


def is_loopback(host: str) -> bool:
    """Return whether other machines cannot reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"


def serve(store: Store, host: str = "127.0.0.1", port: int = 8370, announce: Callable[[str], object] = print) -> None:
    """Serve a study's page until it is interrupted.

    Args:
        store: the study.
        host: the address to listen at; another than the loopback lets other machines in, over plain HTTP.
        port: 0 = any that is free.
        announce: is told the link for raters, once the page can be opened.

    Raises:
        SightlineError: the address cannot be listened at.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SightlineError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error
    everywhere = host in ("0.0.0.0", "::")
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        Page(store).application(),
        access_log=False,  # it would write the token of every link
        log_level="warning",
        server_header=False,
        http=TimedProtocol,
        ws="none",
        limit_concurrency=200,
        timeout_graceful_shutdown=3,
    )
    with listener:
        announce(f"http://{name}:{listener.getsockname()[1]}/?token={store.token}")
        uvicorn.Server(config).run(sockets=[listener])
