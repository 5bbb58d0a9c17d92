"""Where boxes come from: LOST, a model's maps, a detector, or an annotation file, all behind one interface."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline._core.devices import pick_device
from sightline._core.fingerprint import fingerprint
from sightline._core.registry import Registry
from sightline.data.dataset import Sample
from sightline.data.files import locate
from sightline.errors import MissingFileError, unknown_name
from sightline.formats.box_files import Box, BoxFile
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.lost import lost
from sightline.models.checkpoint import read_checkpoint
from sightline.models.weights import load_checkpoint, load_weights
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.regions.boxes import peak_boxes


class BoxDetector(ABC):
    """Says where the objects in images are."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the boxes are of, as JSON values: other facts, other boxes."""

    @abstractmethod
    def __call__(self, samples: Sequence[Sample]) -> list[list[Box]]:
        """Return the boxes in each image, in pixels of the image; an empty list if nothing was found."""


BOX_DETECTORS: Registry[BoxDetector] = Registry("box detector", modules=("sightline.localization.detectors",))


@BOX_DETECTORS.register("lost", needs_model="transformer")
class LostBoxes(BoxDetector):
    """One box per image, by LOST on a self-supervised vision transformer.

    Args:
        model: such as timm's DINO or DINOv2.
        input_spec: its normalisation.
        size: the shorter side at which the model sees an image, about; None = the image's own.
        candidates: patches that may vote for the object.
    """

    def __init__(self, model: nn.Module, input_spec: InputSpec, size: int | None = None, candidates: int = 100) -> None:
        self.model, self.input_spec, self.size, self.candidates = model, input_spec, size, candidates

    @property
    def facts(self) -> dict[str, Any]:
        """The model's fingerprint and the options."""
        spec = self.input_spec
        options = {"size": self.size, "candidates": self.candidates}
        return {
            "source": "lost",
            "model": fingerprint(self.model),
            "input": [list(spec.mean), list(spec.std)],
            **options,
        }

    def __call__(self, samples: Sequence[Sample]) -> list[list[Box]]:
        """One box per image; images of one size go through the model together."""
        same: dict[torch.Size, list[int]] = defaultdict(list)
        for place, sample in enumerate(samples):
            same[sample.image.shape].append(place)
        device = next(self.model.parameters()).device
        found: list[list[Box]] = [[] for _ in samples]
        for places in same.values():
            images = torch.stack([samples[place].image.as_subclass(Tensor) for place in places]).to(device) / 255
            boxes = lost(self.model, images, self.input_spec, size=self.size, candidates=self.candidates)
            for place, box in zip(places, boxes.tolist()):
                found[place] = [Box(*box)]
        return found


@BOX_DETECTORS.register("saliency", needs_model="classifier")
class SaliencyBoxes(BoxDetector):
    """One box per image, around what the map of a classifier's predicted class points out.

    The threshold is that of Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 3.2,
    who take the largest part above it.

    Args:
        model: a classifier.
        input_spec: its normalisation, and the size at which it sees the images.
        explainer: the explainer's name.
        layer: its target layer; None chooses by the model's family.
        threshold: least value, itself left out, of a pixel that is pointed out; of those, the part that holds the maximum
            counts. An image whose map has no such pixel has no box.
    """

    def __init__(
        self,
        model: nn.Module,
        input_spec: InputSpec,
        explainer: str = "gradcam",
        layer: LayerChoice | None = None,
        threshold: float = 0.2,
    ) -> None:
        check_fraction("[0, 1)", threshold=threshold)
        self.maps = ExplainedMaps(model, input_spec, explainer, layer)
        self.threshold = threshold

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the maps, and the threshold."""
        return {"source": "saliency", "threshold": self.threshold, **self.maps.facts}

    def __call__(self, samples: Sequence[Sample]) -> list[list[Box]]:
        """One box per image, or none."""
        found = [peak_boxes(one[None], self.threshold) for one in self.maps(samples)]  # images differ in size
        return [[Box(*box.int().tolist())] if exists else [] for (box,), exists in found]


@BOX_DETECTORS.register("torchvision")
class TorchvisionBoxes(BoxDetector):
    """The box of highest score that one of torchvision's detectors finds in an image.

    Args:
        name: the detector's name there.
        weights: "default" for those that torchvision downloads, or a file with them.
    """

    def __init__(self, name: str = "fasterrcnn_resnet50_fpn_v2", weights: str = "default") -> None:
        from torchvision import models

        known = models.list_models(module=models.detection)
        if name not in known:
            raise unknown_name("torchvision detector", name, known)
        default = models.get_model_weights(name).DEFAULT
        self.name = name
        self.classes: list[str] = default.meta["categories"]
        self.detector = models.get_model(name, weights=None, weights_backbone=None).eval()
        if weights == "default":
            try:
                state = default.get_state_dict(progress=True, check_hash=True)
            except (OSError, RuntimeError) as error:
                raise MissingFileError(
                    f"weights='default' of {name} could not be downloaded ({str(error).splitlines()[0]}); "
                    "pass a local file with weights="
                ) from error
            load_weights(self.detector, state, head=(), source=weights)
        else:
            load_checkpoint(self.detector, read_checkpoint(locate(weights, "weights")), head=())
        self.detector.to(pick_device())

    @property
    def facts(self) -> dict[str, Any]:
        """The detector's name and the fingerprint of its weights."""
        return {"source": "torchvision", "name": self.name, "model": fingerprint(self.detector)}

    def __call__(self, samples: Sequence[Sample]) -> list[list[Box]]:
        """One box per image, or none where the detector finds nothing."""
        device = next(self.detector.parameters()).device
        with torch.inference_mode():
            detections = self.detector([s.image.as_subclass(Tensor).to(device) / 255 for s in samples])
        return [self._best(found) for found in detections]

    def _best(self, found: dict[str, Tensor]) -> list[Box]:
        if not len(found["scores"]):
            return []
        best = int(found["scores"].argmax())
        label = self.classes[int(found["labels"][best])]
        x1, y1, x2, y2 = found["boxes"][best].tolist()
        return [Box(x1, y1, x2, y2, float(found["scores"][best]), label)]


@BOX_DETECTORS.register("annotations")
class AnnotatedBoxes(BoxDetector):
    """The boxes of an annotation file; as many an image as it has.

    Args:
        file: see `sightline.formats.box_files.BoxFile`.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = BoxFile(file)

    @property
    def facts(self) -> dict[str, Any]:
        """The fingerprint of the files."""
        return {"source": "annotations", "content": self.file.fingerprint}

    def __call__(self, samples: Sequence[Sample]) -> list[list[Box]]:
        """Return the boxes of each image, none for one that the file does not name."""
        return [self.file.of(sample.path) for sample in samples]
