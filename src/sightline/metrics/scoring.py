"""A classifier as the metrics use it: images in, probabilities out."""

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.input_spec import InputSpec
from sightline.tap import evaluating, logits_of

# Pixels in one call to the model when no chunk is set: 32 images of 224 x 224 fill the caches of a CPU, and 256 a GPU.
PIXELS_A_CALL = {"cpu": 32 * 224**2, "accelerator": 256 * 224**2}


class Scorer:
    """A classifier that answers with probabilities: in eval mode, without a graph, in chunks that bound the memory.

    Args:
        model: returns logits (B, K), or an object with `.logits`; every module's mode is given back after each call.
        input_spec: normalises images in [0, 1]; None = images are what the model takes.
        chunk: images in one call. None chooses by the images' size, and halves it where the memory does not suffice.
    """

    def __init__(self, model: nn.Module, input_spec: InputSpec | None = None, chunk: int | None = None) -> None:
        if chunk is not None and chunk < 1:
            raise SightlineError(f"chunk is {chunk}; expected at least 1 image in a call, or None")
        self.model = model
        self.input_spec = input_spec
        self._chunk = chunk
        self._fits: int | None = None  # found by running out of memory

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities (B, K), float32 at least, of images (B, C, H, W).

        Raises:
            SightlineError: a probability is NaN, or images lie outside [0, 1] though there is an input spec.
        """
        probabilities = self.score(self.prepare(images))
        check_probabilities(probabilities)
        return probabilities

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the model takes them."""
        return images if self.input_spec is None else self.input_spec.normalize(images)

    def score(self, prepared: Tensor) -> Tensor:
        """Probabilities (B, K) of prepared images; the caller sees to NaN, once for many calls."""
        parts, start = [], 0
        with torch.no_grad(), evaluating(self.model):
            while start < len(prepared):
                size = self.chunk(prepared)
                part = self._forward(prepared[start : start + size], may_shrink=self._chunk is None and size > 1)
                if part is None:
                    self._fits = min(size, len(prepared) - start) // 2 or 1
                    continue
                parts.append(part)
                start += size
        return torch.cat(parts)

    def chunk(self, images: Tensor) -> int:
        """How many images like these (…, H, W) one call takes."""
        if self._chunk is not None:
            return self._chunk
        budget = PIXELS_A_CALL["cpu" if images.device.type == "cpu" else "accelerator"]
        size = max(1, budget // (images.shape[-2] * images.shape[-1]))
        return size if self._fits is None else min(size, self._fits)

    def _forward(self, prepared: Tensor, may_shrink: bool) -> Tensor | None:
        try:
            logits = logits_of(self.model(prepared))
        except torch.OutOfMemoryError:
            if not may_shrink:
                raise
            return None
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


def check_probabilities(probabilities: Tensor) -> None:
    """Refuse probabilities (B, …) that are not finite, naming the images."""
    finite = torch.isfinite(probabilities).flatten(1).all(1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise SightlineError(f"the model's probabilities for images {bad[:10]} are NaN; is the model finite there?")
