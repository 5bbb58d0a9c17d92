"""The page that raters see, and what it may be asked."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from sightline._core.optional import requires_extra
from sightline._core.seeding import derive_seed, generator
from sightline.rating.store import Choice, Part, Rater, Side, Store
from sightline.serving.http import Allowance, read_form
from sightline.serving.listening import listen
from sightline.serving.site import Site

with requires_extra("rating", "the rating page"):
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

Place = Literal["first", "second", "same"]


class Voting(BaseModel):
    """What a vote sends: which of the two maps, as this rater sees them, is better."""

    model_config = ConfigDict(extra="forbid", strict=True)
    pair: int = Field(ge=0)
    choice: Place


def first_side(seed: int, rater: int, pair: int) -> Side:
    """Whose map a rater sees first: a coin for every rater and pair."""
    return "ab"[derive_seed(seed, "side", rater, pair) % 2]  # type: ignore[return-value]


def order(seed: int, rater: int, pairs: int) -> list[int]:
    """In which order a rater sees the pairs, so no pair is always the last one, when raters are tired."""
    return torch.randperm(pairs, generator=generator(seed, "order", rater)).tolist()


class Page(Site[Rater]):
    """The answers to the page's requests.

    Args:
        store: the study.
    """

    what: ClassVar[str] = "study"
    who: ClassVar[str] = "rater"

    def __init__(self, store: Store) -> None:
        super().__init__(store.id, store.token, store.join, "sightline.rating", "rate")
        self.store = store
        self.seed = int(store.facts["seed"])
        self.voting: dict[int, Allowance] = {}

    def routes(self) -> Sequence[Route]:
        """Return the routes that only this page has."""
        return [
            Route("/picture/{name}", self.picture),
            Route("/state", self.state),
            Route("/join", self.join, methods=["POST"]),
            Route("/leave", self.leave, methods=["POST"]),
            Route("/vote", self.vote, methods=["POST"]),
        ]

    def person(self, secret: str) -> Rater | None:
        """Return the rater of a secret; None where there is none."""
        return self.store.rater(secret)

    async def picture(self, request: Request) -> Response:
        """Serve an image by its name in the study's file; nothing is read by a path."""
        self.admit(request)
        jpeg = await run_in_threadpool(self.store.picture, request.path_params["name"])
        if jpeg is None:
            raise HTTPException(404, "This image does not exist.")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    async def state(self, request: Request) -> Response:
        """How far the rater is: the pairs in this rater's order and sides, with the answers given."""
        self.admit(request)
        if (rater := await self.find(request)) is None:
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
        return JSONResponse({"rater": rater.title, "link": self.link(rater), "total": len(pairs), "pairs": pairs})

    async def vote(self, request: Request) -> Response:
        """Keep a vote. The answer goes out when the vote is on the disk."""
        self.admit(request)
        if (rater := await self.find(request)) is None:
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


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"


def serve(store: Store, host: str = "127.0.0.1", port: int = 8370, announce: Callable[[str], object] = print) -> None:
    """Serve a study's page until it is interrupted.

    Args:
        store: the study.
        host: the address to serve at; another than the loopback lets other machines in, over plain HTTP.
        port: 0 = any that is free.
        announce: is told the link for raters, once the page can be opened.

    Raises:
        SightlineError: the address cannot be listened at.
    """
    listen(Page(store).application(), store.token, host, port, announce)
