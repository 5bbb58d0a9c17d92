"""The answer of a model, and the maps that can be taken from the same pass through it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sightline._core.internal_batches import InternalBatches
from sightline.evaluation.map_sources import MapSource
from sightline.explainers.base import checked_maps, explaining
from sightline.explainers.baseline import RandomCAM
from sightline.explainers.cam import CAM
from sightline.explainers.finer import FinerCAM
from sightline.explainers.places import warn_of_few_places
from sightline.metric_base.scoring import Scorer, check_probabilities
from sightline.network.input_spec import to_inputs
from sightline.network.logits import probabilities_of
from sightline.network.tap import Tap

SHARING = (CAM, FinerCAM, RandomCAM)  # exactly these types: a subclass may make its maps in another way

ClassesOf = Callable[[Tensor, slice], Tensor]
"""From the probabilities (n, K) of some images of a batch, and which they are, to the classes (n,) that maps are about."""


class OnePass:
    """A model that answers, and is opened at its target layers in the same pass where class activation maps are wanted.

    All class activation maps of the same layers come from that pass. A compiled model answers in a separate pass, since no
    hook acts in it.

    Args:
        scorer: The model.
        sources: Where the maps come from.
    """

    def __init__(self, scorer: Scorer, sources: Sequence[MapSource]) -> None:
        self.scorer = scorer
        able = {
            source.name: (source.explainer, source.explain)
            for source in sources
            if isinstance(source.explainer, CAM) and type(source.explainer) in SHARING and source.explain is not None
        }
        layers = [bound.layer for _, bound in able.values()]
        self._cams = {
            name: each for name, each in able.items() if each[1].layer is layers[0] and not scorer.is_compiled
        }
        self._tap: Tap | None = None
        self._batches = InternalBatches()

    def __call__(self, images: Tensor, indices: Tensor, classes_of: ClassesOf) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the probabilities (B, K) of images, and maps (B, H, W) by the name of their source.

        Args:
            images: (B, C, H, W).
            indices: (B,) place of each image in its dataset, which random draws are keyed by.
            classes_of: Tells the classes that the maps are about.

        Raises:
            SightlineError: Probabilities or maps are not finite, or an explainer is not defined here.
        """
        if not self._cams:
            return self.scorer(images), {}
        keyed = {name: (cam.for_images(images, indices), bound) for name, (cam, bound) in self._cams.items()}
        found: dict[str, list[Tensor]] = {name: [] for name in keyed}
        with explaining(self.scorer.model, images) as (model, ordinary):
            inputs = to_inputs(ordinary, self.scorer.input_spec)
            # One tap for all batches: to tell the default layer may take a pass.
            tap = self._tap = self._tap or Tap(model, next(iter(keyed.values()))[1].layer)

            def answer(start: int, stop: int) -> Tensor:
                tapped = tap(inputs[start:stop])
                warn_of_few_places(model, inputs, tapped.layers, tapped.activations)
                probabilities = probabilities_of(tapped.output).detach()
                if probabilities.isfinite().all():  # else there is an error for the whole batch below
                    classes = classes_of(probabilities, slice(start, stop))
                    maps = {
                        name: cam.for_rows(start, stop).maps_of(tapped, bound.question(classes))
                        for name, (cam, bound) in keyed.items()
                    }
                    for name, some in maps.items():
                        found[name].append(some)
                return probabilities

            probabilities = self._batches.map(answer, len(inputs), inputs)
        check_probabilities(probabilities)
        return probabilities, {name: checked_maps(torch.cat(some)) for name, some in found.items()}
