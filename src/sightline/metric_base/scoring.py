"""A classifier as the metrics use it: images in, probabilities out."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import check_finite
from sightline.inference.fastest import fastest
from sightline.inference.precision import bf16_where_asked
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.logits import probabilities_of
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap


class Scorer:
    """A classifier that answers with probabilities: in eval mode, without a graph, in internal batches that bound the memory.

    Args:
        model: returns logits (B, K), or an object with `.logits`; every module's mode is given back after each call.
        input_spec: normalizes images in [0, 1]; None = images are what the model takes.
        internal_batch_size: images in one call. None chooses by the image size, and halves it when memory runs out.
        compiled: let `torch.compile` make the model faster; every call then has the full size, filled up where
            images are wanting, since a new size means a new compilation.
    """

    def __init__(
        self,
        model: nn.Module,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.input_spec = input_spec
        self._batches = InternalBatches(internal_batch_size)
        self._compiled = torch.compile(self.model, dynamic=False) if compiled else None

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities (B, K), float32 at least, of images (B, C, H, W).

        Raises:
            SightlineError: a probability is NaN, or images are outside [0, 1] though there is an input spec.
        """
        probabilities = self.score(self.prepare(images))
        check_probabilities(probabilities)
        return probabilities

    @property
    def is_compiled(self) -> bool:
        """Whether `torch.compile` makes the model faster."""
        return self._compiled is not None

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the model takes them."""
        return to_inputs(images, self.input_spec)

    def score(self, prepared: Tensor) -> Tensor:
        """Probabilities (B, K) of prepared images; the caller sees to NaN, once for many calls."""
        with torch.no_grad(), evaluating(self.model), self._fastest(prepared):
            return self._batches.map(lambda start, stop: self._forward(prepared[start:stop]), len(prepared), prepared)

    def batch_size(self, images: Tensor, count: int | None = None) -> int:
        """Return how many images of this size (..., H, W) one call takes; `count` is how many there are; None = many."""
        with torch.no_grad(), evaluating(self.model), self._fastest(images):
            return self._batches.size(images, count)

    def _fastest(self, images: Tensor) -> AbstractContextManager[None]:
        # A compiled model has the size and the order that it was compiled for.
        return nullcontext() if self._compiled is not None else fastest(self.model, images)

    def _forward(self, prepared: Tensor) -> Tensor:
        if self._compiled is None:
            return probabilities_of(self.model(prepared))
        count = len(prepared)
        filling = prepared[:1].expand(self.batch_size(prepared) - count, *prepared.shape[1:])
        with bf16_where_asked(prepared.device):
            output = self._compiled(torch.cat([prepared, filling]))
        return probabilities_of(output)[:count]


def check_probabilities(probabilities: Tensor) -> None:
    """Raise if probabilities (B, ...) are not finite, naming the images."""
    check_finite(probabilities, "the model's probabilities", "is the model finite there?")
