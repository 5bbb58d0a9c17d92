"""The marking page, and what it may be asked."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sightline._core.output_lock import holding_folder
from sightline.errors import SightlineError
from sightline.fixing.protocol import Export, MarkingData, Refit
from sightline.marking.actions import Action, Choosing, Leaving, Nothing, OfImage, apply
from sightline.marking.images import Images
from sightline.marking.mark_files import write_marks
from sightline.marking.queue import Queue
from sightline.marking.refitting import Refitting
from sightline.marking.segmenting import Segmenting
from sightline.marking.store import Person, Store
from sightline.serving.http import Allowance, read_form
from sightline.serving.listening import listen
from sightline.serving.site import Site
from sightline.serving.store_file import StoreUnavailableError

FILE = "marks.sqlite"
STROKE = 128 * 1024  # bytes that an action may carry; the longest stroke has about 80,000
AT_ONCE = 2  # actions whose masks are made at the same time


class Page(Site[Person]):
    """The answers to the page's requests.

    Args:
        store: the marks.
        data: the images.
        refit: fits the model again.
        export: writes the fixed model.
        output: the folder that `export` writes to.
        segmenting: makes masks of points and boxes.
    """

    what: ClassVar[str] = "session"
    who: ClassVar[str] = "person"

    def __init__(
        self, store: Store, data: MarkingData, refit: Refit, export: Export, output: Path, segmenting: Segmenting
    ) -> None:
        super().__init__(store.id, store.token, store.join, "sightline.marking", "fix")
        self.store, self.data, self.export_model, self.output = store, data, export, output
        self.segmenting = segmenting
        self.images = Images(data)
        self.queue = Queue(data.scores)
        self.refitting = Refitting(store, refit)
        self.marking: dict[int, Allowance] = {}
        self._busy = threading.BoundedSemaphore(AT_ONCE)
        self._locks = [threading.Lock() for _ in range(64)]  # two actions on one image come one after the other
        self._exporting = threading.Lock()

    def routes(self) -> Sequence[Route]:
        """Return the routes that only this page has."""
        return [
            Route("/image/{index:int}", self.image),
            Route("/map/{index:int}", self.map),
            Route("/masks/{index:int}", self.masks),
            Route("/state", self.state),
            Route("/open/{index:int}", self.open),
            Route("/history/{index:int}", self.history),
            *(
                Route(f"/{name}", answer, methods=["POST"])
                for name, answer in (
                    ("join", self.join), ("leave", self.leave), ("next", self.next), ("mark", self.mark), ("undo", self.undo),
                    ("redo", self.redo), ("refit", self.refit), ("choose", self.choose), ("export", self.export),
                )
            ),
        ]  # fmt: skip

    def person(self, secret: str) -> Person | None:
        """Return the person of a secret; None where there is none."""
        return self.store.person(secret)

    async def image(self, request: Request) -> Response:
        """Return an image as a JPEG file."""
        return await self._drawn(request, self.images.jpeg)

    async def map(self, request: Request) -> Response:
        """Return an image with the map over it as a JPEG file."""
        return await self._drawn(request, self.images.overlay)

    async def masks(self, request: Request) -> Response:
        """Return the masks of an image as a transparent PNG file."""
        self.admit(request)
        index = self._index(request.path_params["index"])
        png = await run_in_threadpool(lambda: self.images.masks(index, self.store.drawing(index)))
        return Response(png, media_type="image/png")

    async def state(self, request: Request) -> Response:
        """Return who asks, how far the marking is, and all refits."""
        self.admit(request)
        person = await self.find(request)
        return JSONResponse(await run_in_threadpool(self._state, person))

    async def open(self, request: Request) -> Response:
        """Return what is known of an image."""
        person = await self._require(request)
        index = self._index(request.path_params["index"])
        self.queue.show(index, person.person)
        return JSONResponse(await run_in_threadpool(self._image, index))

    async def history(self, request: Request) -> Response:
        """Return all actions on an image."""
        self.admit(request)
        index = self._index(request.path_params["index"])
        return JSONResponse({"actions": await run_in_threadpool(self.store.history, index)})

    async def next(self, request: Request) -> Response:
        """Return the next image for this person; `image` is None where all are done. The body names the image left."""
        person = await self._require(request)
        left = (await read_form(request, Leaving)).image
        after = None if left is None else self._index(left)
        index = await run_in_threadpool(lambda: self.queue.next(person.person, self.store.touched(), after))
        return JSONResponse({"image": None} if index is None else await run_in_threadpool(self._image, index))

    async def mark(self, request: Request) -> Response:
        """Keep an action. The answer goes out when the action is on the disk."""
        person = await self._require(request)
        if not self.marking.setdefault(person.person, Allowance(60, 10)).take():
            raise HTTPException(429, "That is faster than anyone can mark.", {"Retry-After": "2"})
        form = await read_form(request, Action, STROKE)
        index = self._index(form.image)

        def act() -> dict[str, Any]:
            with self._locks[index % len(self._locks)], self._busy:
                drawing = apply(
                    self.store.drawing(index),
                    form.action,
                    self.images.at_mask_size(index),
                    self.segmenting,
                    lambda: self.images.suggestion(index),
                )
                self.store.add(index, person, form.action.kind, drawing)
            return self._image(index)

        return JSONResponse(await self._attempt(act))

    async def undo(self, request: Request) -> Response:
        """Take back the latest action on an image."""
        return await self._turn(request, self.store.undo)

    async def redo(self, request: Request) -> Response:
        """Do again what was taken back."""
        return await self._turn(request, self.store.redo)

    async def refit(self, request: Request) -> Response:
        """Start a refit with the marks so far."""
        person = await self._require(request)
        await read_form(request, Nothing)
        if not await self._attempt(lambda: self.refitting.start(person)):
            raise HTTPException(409, "A refit runs already.")
        return JSONResponse(self.refitting.state, status_code=202)

    async def choose(self, request: Request) -> Response:
        """Choose the refit that is exported; None = the given model."""
        person = await self._require(request)
        form = await read_form(request, Choosing)
        if form.refit is not None and form.refit > 2**31:
            raise HTTPException(404, f"There is no refit {form.refit}.")
        await self._attempt(lambda: self.store.choose(form.refit))
        return JSONResponse(await run_in_threadpool(self._state, person))

    async def export(self, request: Request) -> Response:
        """Write the marks and the chosen model into the output folder."""
        await self._require(request)
        await read_form(request, Nothing)

        def write() -> list[str]:
            with self._exporting:
                marks = self.store.marks()
                files = write_marks(self.data, marks, self.output)
                files += self.export_model(self.store.chosen(), marks, self.output)
            return [str(file.relative_to(self.output)) for file in files]

        return JSONResponse({"folder": str(self.output.resolve()), "files": await self._attempt(write)})

    def _state(self, person: Person | None) -> dict[str, Any]:
        return {
            "session": self.store.id,
            "person": None if person is None else person.title,
            "link": None if person is None else self.link(person),
            "title": self.data.title,
            "total": len(self.data.names),
            **self.store.progress(),
            "outside": self.segmenting.takes_outside,
            "refit": self.refitting.state,
            "refits": [asdict(refit) for refit in self.store.refits()],
            "chosen": self.store.chosen(),
        }

    def _image(self, index: int) -> dict[str, Any]:
        drawing = self.store.drawing(index)
        height, width = self.images.at_mask_size(index).shape[:2]
        layers = {name: drawing.layer(name) for name in ("object", "avoid")}
        return {
            "image": index,
            "name": self.data.names[index],
            "label": self.data.labels[index],
            "predicted": self.data.predicted[index],
            "rank": self.queue.rank[index] + 1,
            "width": width,
            "height": height,
            "judgement": drawing.judgement,
            "suggested": drawing.object.mask is None and self.images.suggestion(index) is not None,
            "version": self.store.version(index),
            "undo": self.store.can_undo(index),
            "redo": self.store.can_redo(index),
            "marked": len(self.store.touched()),
            **{
                name: {
                    "inside": layer.inside,
                    "outside": layer.outside,
                    "box": layer.box,
                    "mask": layer.mask is not None,
                }
                for name, layer in layers.items()
            },
        }

    def _index(self, index: int) -> int:
        if index >= len(self.data.names):
            raise HTTPException(404, f"Image {index} does not exist.")
        return index

    async def _require(self, request: Request) -> Person:
        self.admit(request)
        if (person := await self.find(request)) is None:
            raise HTTPException(403, "This browser has not begun yet, so nobody's marks can be kept.")
        return person

    async def _drawn(self, request: Request, draw: Callable[[int], bytes]) -> Response:
        self.admit(request)
        content = await run_in_threadpool(draw, self._index(request.path_params["index"]))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def _turn(self, request: Request, turn: Callable[[int], str | None]) -> Response:
        await self._require(request)
        index = self._index((await read_form(request, OfImage)).image)
        done = await run_in_threadpool(turn, index)
        return JSONResponse({"done": done, **await run_in_threadpool(self._image, index)})

    async def _attempt(self, action: Callable[[], Any]) -> Any:
        """Run what may be impossible here; a lost store is answered elsewhere."""
        try:
            return await run_in_threadpool(action)
        except StoreUnavailableError:
            raise
        except SightlineError as error:
            raise HTTPException(422, str(error)) from None


def serve(
    data: MarkingData,
    refit: Refit,
    export: Export,
    output: Path,
    *,
    segmenter: str = "grabcut",
    host: str = "127.0.0.1",
    port: int = 8371,
    announce: Callable[[str], object] = print,
) -> None:
    """Serve the marking page until it is interrupted; marks that are in the output folder continue.

    Args:
        data: the images with their maps, scores and suggestions.
        refit: fits the model again from the marks.
        export: writes the fixed model into the output folder.
        output: the folder of the marks and of what is exported; no other process can use it meanwhile.
        segmenter: "grabcut", or "package.module:function".
        host: the address to serve at; another than the loopback lets other machines in, over plain HTTP.
        port: 0 = any that is free.
        announce: is told the link, once the page can be opened.

    Raises:
        SightlineError: the folder has marks of other images, there is no such segmenter, or the address cannot be used.
    """
    segmenting = Segmenting(segmenter)
    with holding_folder(output):
        store = Store.open(output / FILE, data.fingerprint, len(data.names))
        page = Page(store, data, refit, export, output, segmenting)
        listen(page.application(), store.token, host, port, announce)
