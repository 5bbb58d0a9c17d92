"""Search for an unknown shortcut: what predicts the class, what the predictions follow, and what both have in common."""

from dataclasses import dataclass

from torch import nn

from sightline.diagnosis.clusters import Cluster, find_clusters
from sightline.diagnosis.leftovers import probe_leftovers
from sightline.diagnosis.maps import MapMeasurements
from sightline.diagnosis.probe import Probe
from sightline.diagnosis.properties import Property, measure_properties
from sightline.diagnosis.transplants import BACKGROUND, Transplant, transplant
from sightline.errors import SightlineError
from sightline.localization.annotation import MIN_IMAGES, Annotated
from sightline.network.input_spec import InputSpec

LEVEL = 0.01  # a corrected p-value below it counts
MIN_EFFECT = 0.10  # least share of the answers that follow what was taken
SPECIFIC = 0.5  # share of the background's effect above which a single thing explains it
STRONG = 0.3  # least strength of a property that counts


@dataclass(frozen=True)
class Shortcuts:
    """What a search for shortcuts found.

    Attributes:
        named: what the answers follow most specifically; empty = nothing.
        because: the sentence that says why.
        transplants: what was taken from other images, the largest effect first.
        leftovers: how well the background and the border alone predict the class.
        properties: how plain properties go with the class.
        clusters: images whose features under the maps are similar.
    """

    named: str
    because: str
    transplants: list[Transplant]
    leftovers: list[Probe]
    properties: list[Property]
    clusters: list[Cluster]


def find_shortcuts(
    model: nn.Module,
    shown: Annotated,
    maps: MapMeasurements,
    input_spec: InputSpec | None,
    seed: int = 0,
    progress: bool = False,
) -> Shortcuts | None:
    """Search for a shortcut; None where there are too few images with a known object, or one class.

    Args:
        model: a classifier that returns logits (B, K).
        shown: the images, with their objects.
        maps: their maps.
        input_spec: normalizes images in [0, 1].
        seed: of draws.
        progress: whether to show a bar.
    """
    if int(shown.usable.sum()) < MIN_IMAGES or len(shown.labels[shown.usable].unique()) < 2:
        return None
    moved = sorted(transplant(model, shown, input_spec, seed, progress), key=lambda each: -each.effect)
    properties = measure_properties(shown)
    try:
        leftovers, clusters = probe_leftovers(model, shown, input_spec), find_clusters(model, shown, maps, input_spec)
    except SightlineError:  # a model without a last linear layer has no features to probe
        leftovers, clusters = [], []
    return Shortcuts(*_name(moved, properties), moved, leftovers, properties, clusters)


def _name(moved: list[Transplant], properties: list[Property]) -> tuple[str, str]:
    """Name the most specific property that the answers follow, and say why."""
    followed = [each for each in moved if each.p < LEVEL and each.effect >= MIN_EFFECT]
    whole = next((each.effect for each in followed if each.name == BACKGROUND), 0.0)
    specific = [each for each in followed if each.name != BACKGROUND and each.effect >= SPECIFIC * whole]
    chosen = next(iter(specific or [each for each in followed if each.name == BACKGROUND]), None)
    if chosen is not None:
        return chosen.name, (
            f"Taken from an image of another class, it changes the prediction to that of this image in {chosen.flips:.0%} of "
            f"{chosen.n} cases ({chosen.control:.0%} if it is taken from an image of the same class)."
        )
    telling = [each for each in properties if each.p < LEVEL and each.strength >= STRONG]
    file = next((each for each in telling if each.name in FILE_PROPERTIES), None)
    if file is not None:
        return file.name, (
            f"In this data it predicts the class (strength of the association {file.strength:.2f} of 1). Whether the model "
            "uses it cannot be tested: the model gets neither the file nor the original size."
        )
    return "", "The predictions follow none of the parts and properties that were tried."


FILE_PROPERTIES = ("width", "height", "aspect", "file format", "camera")
