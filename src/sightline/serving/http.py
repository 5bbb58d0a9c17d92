"""What requests carry, how often they may come, and the headers of every answer."""

import asyncio
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from sightline._core.optional import requires_extra

with requires_extra("rating", "a local page"):
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 1024  # bytes that a request may carry where the page does not say otherwise
SECONDS = 10.0  # that a request may take to arrive
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the link carries the token
    "X-Content-Type-Options": "nosniff",
}
Form = TypeVar("Form", bound=BaseModel)


def _name(name: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if name and not re.fullmatch(r"\w[\w .'@-]{0,39}", name):  # none begins as a spreadsheet's formula does
        raise ValueError("a name has up to 40 letters, digits, spaces, and . ' @ -")
    return name


class Joining(BaseModel):
    """What a person who begins sends; an empty name = none."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, AfterValidator(_name)]


class Allowance:
    """How often something may be done: so many times at once, and so many a second from then on."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst = burst
        self.per_second = per_second
        self.clock = clock
        self.left = burst
        self.since = clock()

    def take(self) -> bool:
        """Whether it may be done now; if so, it counts."""
        now = self.clock()
        self.left = min(self.burst, self.left + (now - self.since) * self.per_second)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Headers:
    """Puts `HEADERS` on every answer, and lets no browser keep one that does not say that it may be kept."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                for name, value in {**HEADERS, "Cache-Control": "no-store"}.items():
                    if (key := name.lower().encode()) not in given:
                        message["headers"].append((key, value.encode()))
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


async def read_form(request: Request, form: type[Form], limit: int = BODY) -> Form:
    """Return the body, checked: it has at most `limit` bytes, comes in time, and is JSON of the form."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Expected application/json.")
    body = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise HTTPException(413, f"Expected at most {limit} bytes.")
    except TimeoutError:
        raise HTTPException(408, "The request did not arrive in time.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The request broke off.") from None
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        raise HTTPException(400 if problem["type"] == "json_invalid" else 422, problem["msg"]) from None


async def refuse(request: Request, error: Exception) -> Response:
    """Answer with an error: as text for the page itself, which a person reads, else as JSON."""
    assert isinstance(error, HTTPException)
    if request.url.path == "/":  # a person reads it
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def report_unavailable(request: Request, error: Exception) -> Response:
    """Acknowledge nothing where the file cannot be used, such as on a full disk; the page says to try again."""
    print(f"{request.url.path} failed: {error}", file=sys.stderr)
    return JSONResponse({"error": "The file of this page cannot be used now."}, 503)
