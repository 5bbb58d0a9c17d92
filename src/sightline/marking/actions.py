"""What the page sends, checked; and what each action makes of a drawing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sightline.errors import SightlineError
from sightline.fixing.marks import Judgement
from sightline.marking.drawing import Drawing, LayerName
from sightline.marking.segmenting import Segmenting

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A position as a share of the width or the height."""
MOST_POINTS, LONGEST_STROKE = 64, 2000


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Judge(_Form):
    """Says whether the map is at the right place."""

    kind: Literal["judge"]
    judgement: Judgement


class Click(_Form):
    """Says that a point is on the object, or is not."""

    kind: Literal["click"]
    layer: LayerName
    x: Share
    y: Share
    inside: bool


class DrawBox(_Form):
    """Says that the object is within a box. On the layer `avoid`, the box itself is the mask."""

    kind: Literal["box"]
    layer: LayerName
    x0: Share
    y0: Share
    x1: Share
    y1: Share

    @model_validator(mode="after")
    def _has_an_area(self) -> "DrawBox":
        if self.x1 - self.x0 < 0.004 or self.y1 - self.y0 < 0.004:
            raise ValueError("the box has no area")
        return self


class Stroke(_Form):
    """Paints or erases along a path."""

    kind: Literal["stroke"]
    layer: LayerName
    path: list[Annotated[list[Share], Field(min_length=2, max_length=2)]] = Field(
        min_length=1, max_length=LONGEST_STROKE
    )
    radius: float = Field(ge=0.001, le=0.25, allow_inf_nan=False)
    erase: bool


class Accept(_Form):
    """Takes the suggested mask."""

    kind: Literal["accept"]


class Clear(_Form):
    """Removes everything from one layer."""

    kind: Literal["clear"]
    layer: LayerName


class Action(_Form):
    """One action on one image."""

    image: int = Field(ge=0)
    action: Annotated[Judge | Click | DrawBox | Stroke | Accept | Clear, Field(discriminator="kind")]


class Nothing(_Form):
    """Says nothing more; a form of another site cannot send it as JSON."""


class OfImage(_Form):
    """Names an image."""

    image: int = Field(ge=0)


class Leaving(_Form):
    """Asks for the next image; names the one that the person leaves, or None."""

    image: int | None = Field(ge=0)


class Choosing(_Form):
    """Names a refit; None = the given model."""

    refit: int | None = Field(ge=1)


def apply(
    drawing: Drawing,
    action: BaseModel,
    image: np.ndarray,
    segmenting: Segmenting,
    suggestion: Callable[[], np.ndarray | None],
) -> Drawing:
    """Return the drawing after an action.

    Args:
        drawing: before it.
        action: of the types above.
        image: (h, w, 3) uint8, at the size of the masks.
        segmenting: makes masks of points and boxes.
        suggestion: gives the suggested mask (h, w) bool; None = there is none.

    Raises:
        SightlineError: the action is not possible here.
    """
    size = (image.shape[0], image.shape[1])
    if isinstance(action, Judge):
        return replace(drawing, judgement=action.judgement)
    if isinstance(action, Accept):
        mask = suggestion()
        if mask is None:
            raise SightlineError("There is no suggestion for this image.")
        return replace(drawing, object=replace(drawing.object, inside=(), outside=(), box=None).segmented(mask))
    assert isinstance(action, Click | DrawBox | Stroke | Clear)
    layer = drawing.layer(action.layer)
    if isinstance(action, Clear):
        return drawing.with_layer(action.layer, type(layer)())
    if isinstance(action, Stroke):
        path = tuple((x, y) for x, y in action.path)
        return drawing.with_layer(action.layer, layer.painted(path, action.radius, action.erase, size))
    if isinstance(action, DrawBox):
        layer = replace(layer, box=(action.x0, action.y0, action.x1, action.y1))
    elif len(layer.inside) + len(layer.outside) >= MOST_POINTS:
        raise SightlineError(f"There are {MOST_POINTS} points already. Paint the rest with the brush.")
    elif action.inside:
        layer = replace(layer, inside=(*layer.inside, (action.x, action.y)))
    elif not segmenting.takes_outside:
        raise SightlineError("This segmenter takes no points outside the object. Use the eraser.")
    else:
        layer = replace(layer, outside=(*layer.outside, (action.x, action.y)))
    if not layer.inside and layer.box is None:
        if layer.mask is None:
            raise SightlineError("Click on the object first.")
        # A mask without points, such as an accepted suggestion: its own middle stands for the click.
        layer = replace(layer, inside=(_middle(layer.mask),))
    return drawing.with_layer(action.layer, layer.segmented(segmenting(image, layer, action.layer)))


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Return the pixel of a mask that is farthest from its border, as shares of the width and the height."""
    import cv2

    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return (float(column) + 0.5) / mask.shape[1], (float(row) + 0.5) / mask.shape[0]
