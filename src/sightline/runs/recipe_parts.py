"""Parts of a recipe that stand for themselves."""

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from sightline._core.strict import Positive, Real, StrictModel
from sightline.data import DATASETS, Splits
from sightline.errors import SightlineError
from sightline.inference.precision import Precision
from sightline.models.loading import make_model
from sightline.models.opening import normalized_by, read_names
from sightline.network.head import reorder_head
from sightline.network.input_spec import InputSpec


class Named(BaseModel):
    """Something by its name; every other key is an option of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The other keys."""
        return dict(self.model_extra or {})


class Data(Named):
    """A dataset by its registered name; every other key is an option of that dataset.

    Attributes:
        name: Name of the dataset (`sightline list datasets`).
    """

    def create(self) -> Splits:
        """Create the dataset.

        Raises:
            SightlineError: there is no such dataset or option, or its files are missing.
        """
        return DATASETS.create(self.name, **self.options)


class Model(StrictModel):
    """A model for `sightline.load_model`, its target layer, and what is known of it.

    Attributes:
        name: `timm/NAME`, `torchvision/NAME`, `sightline/NAME`, `hf:FOLDER` or `package.module:function`.
        weights: `default` (the pretrained weights of the library) or a checkpoint file; null initializes at random.
        layer: Name of the target layer, whose maps guides use; null chooses it by the family of the model.
        mean: of the normalization, for images in [0, 1], a value for each channel or one for all; null takes that of the model.
        std: likewise.
        classes: the name of each logit of the weights, or a file with one a line; null takes the names in the weights, else
            ImageNet's for 1000 of them, else their numbers. With names, classes are matched with those of the data by name.
    """

    name: str
    weights: str | None = None
    layer: str | None = None
    mean: list[Real] | None = None
    std: list[Real] | None = None
    classes: list[str] | str | None = None

    def load(self, classes: Sequence[str] | None = None, size: int | None = None) -> tuple[nn.Module, InputSpec]:
        """Load the model as `load_model` does, with the normalization given here.

        Args:
            classes: names of the classes of the data. Where the weights name the same classes in another order, the rows of
                the head are put in this one, with a warning.
            size: side of the input in pixels; None takes that of the weights.

        Raises:
            SightlineError: there is no such model, its weights do not fit, or the classes of the weights are others.
        """
        made = make_model(self.name, self.weights, classes, size)
        names = made.classes if self.classes is None else read_names(self.classes)
        if classes is not None and names is not None and len(names) == len(classes) and list(classes) != names:
            if sorted(names) == sorted(classes):
                reorder_head(made.model, [names.index(name) for name in classes])
                warnings.warn(
                    "the weights have the classes of the data in another order; the head was put in the order of the data",
                    stacklevel=2,
                )
            elif self.classes is not None:
                others = [name for name in names if name not in classes]
                raise SightlineError(
                    f"model.classes has {others[0]!r}, which is no class of the data: {', '.join(classes)}. Name the classes "
                    "as the data does, or leave model.classes out"
                )
        return made.model, normalized_by(made.spec, self.mean, self.std)


class Optimizer(StrictModel):
    """The optimizer of every stage.

    Attributes:
        name: `adam`, `adamw` or `sgd`.
        weight_decay: L2 penalty of `adam` and `sgd`; decoupled weight decay of `adamw`.
        momentum: Momentum of `sgd`.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9


class FeatureCache(StrictModel):
    """Where stages with `cache_features` keep what the frozen part gives.

    Attributes:
        folder: on disk, one draw in memory at a time; a run that was killed, and later runs with the same frozen part, data,
            augmentation and changes of images by guides, continue with what is there. null keeps all draws in memory.
        max_gb: the most that the features of a stage may take, in 10^9 bytes; more is rejected before the run begins.
    """

    folder: str | None = None
    max_gb: Annotated[Real, Field(gt=0)] = 4.0


class Watch(StrictModel):
    """A validation metric, and which end of it is good.

    Attributes:
        metric: Split and metric, such as `val/accuracy`.
        mode: `max` if larger values are better, `min` if smaller values are.
    """

    metric: str
    mode: Literal["max", "min"] = "max"

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far, None if there is none; NaN is worse than any other value."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(value)
        return value > best if self.mode == "max" else value < best


class EarlyStopping(Watch):
    """Ends a stage when its metric has been measured `patience` times without a better value; see `val_interval`.

    Attributes:
        patience: Number of validations without a better value after which the stage ends.
    """

    patience: Positive


class Evaluation(StrictModel):
    """What is measured after training; null takes the default of `sightline.evaluation.evaluate`.

    Attributes:
        splits: Splits that are measured, such as `[test]`; null takes every test split.
        explainers: Explainers whose maps are measured; null takes the defaults.
        metrics: Metrics by name; null takes the defaults.
        max_images_slow: Images of a split that slow metrics measure. Insertion and deletion call the model 448 times per image.
        precision: `bf16` runs the model under bfloat16 autocast; the change of some images is written next to the values.
    """

    splits: list[str] | None = None
    explainers: list[str] | None = None
    metrics: list[str] | None = None
    max_images_slow: Positive = 64
    precision: Precision = "fp32"


class Tracker(Named):
    """An experiment tracker by its name; every other key is an option of its class in `sightline.training.loggers`.

    Attributes:
        name: `wandb` (Weights & Biases) or `mlflow`.
    """

    name: Literal["wandb", "mlflow"]


class MaskQuality(StrictModel):
    """How the training images' masks are made from the drawn ones, or found without them.

    Attributes:
        name: `coarse` (a grid of cells), `dilated`, `box` (instead of the mask) or `wrong` (the mask of another image, for
            some), see `sightline.datasets.derived.mask_quality.DegradedMasks`; `box_cut` (what GrabCut finds in the box around
            the mask) or `found` (what GrabCut finds at the maxima of the Grad-CAM of the model before training; drawn masks
            are not read), see `sightline.localization.found_masks`.
        cells: of `coarse`, along the longer side.
        radius: of `dilated`, as a share of the shorter side.
        share: of `wrong`, how many of the masks.
    """

    name: Literal["coarse", "dilated", "box", "wrong", "box_cut", "found"]
    cells: Positive = 8
    radius: Annotated[Real, Field(gt=0, lt=1)] = 0.05
    share: Annotated[Real, Field(ge=0, le=1)] = 0.5
