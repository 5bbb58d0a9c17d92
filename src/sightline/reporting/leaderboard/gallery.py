"""Images on which metrics and eyes disagree, drawn with all their maps."""

from dataclasses import dataclass

from sightline.evaluation.disagreement import Disagreement, DisputedImage, ScoredMap, find_disagreement
from sightline.evaluation.ranking import RankingTable
from sightline.evaluation.result import SavedImages
from sightline.reporting.overlay import overlay_uri
from sightline.reporting.thumbnails import data_uri, enlarge, outline


@dataclass(frozen=True)
class Tile:
    """A map drawn over its image, as a data URI."""

    scored_map: ScoredMap
    picture: str
    chosen: bool


@dataclass(frozen=True)
class GalleryItem:
    """An image with all its maps.

    Attributes:
        disputed: The chosen image.
        picture: The image as a data URI, the object outlined where there is a mask.
        tiles: The maps that were ranked, the best score first, then those of the chance rows.
    """

    disputed: DisputedImage
    picture: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Gallery:
    """The images of one model.

    Attributes:
        found: What was chosen, and by which measures.
        plausible_but_unfaithful: Maps that look better than they score, the largest gap first.
        faithful_but_implausible: Maps that score better than they look, the largest gap first.
    """

    found: Disagreement
    plausible_but_unfaithful: list[GalleryItem]
    faithful_but_implausible: list[GalleryItem]


def make_gallery(table: RankingTable, saved: SavedImages | None) -> Gallery | None:
    """Draw the images that `find_disagreement` chooses; None if it chooses from nothing."""
    found = find_disagreement(table, saved)
    if found is None or saved is None:
        return None
    plausible, faithful = (
        [_draw_item(image, saved) for image in images]
        for images in (found.plausible_but_unfaithful, found.faithful_but_implausible)
    )
    return Gallery(found, plausible, faithful)


def _draw_item(found: DisputedImage, saved: SavedImages) -> GalleryItem:
    image = enlarge(saved.images[found.place].float() / 255)
    border = None if saved.masks is None else outline(saved.masks[found.place] == 1)

    def draw(one: ScoredMap) -> Tile:
        return Tile(one, overlay_uri(image, saved.maps[one.row][found.place], border), one is found.chosen)

    return GalleryItem(found, data_uri(image, border), [draw(one) for one in (*found.ranked, *found.chance)])
