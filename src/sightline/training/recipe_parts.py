"""Parts of a recipe that stand for themselves."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sightline._core.strict import Positive, Real, StrictModel
from sightline.data.regions import Source


class Tracker(BaseModel):
    """An experiment tracker by its name; every other key is an option of its class in `sightline.training.loggers`.

    Attributes:
        name: `wandb` (Weights & Biases) or `mlflow`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Literal["wandb", "mlflow"]

    @property
    def options(self) -> dict[str, Any]:
        """What the logger gets."""
        return dict(self.model_extra or {})


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


class Head(StrictModel):
    """What `fit: convex` fits behind the frozen trunk.

    Attributes:
        name: `linear`: the classifier's own last layer; `attention_pooling`: an attention that is the object's mask is fitted
            first, and the last layer then gets the mean of the last feature map weighted by the attention's square; or
            `prototype`: the class whose mean feature, pooled over the object, is the nearest (Snell et al. 2017).
        region: the object by its `masks` or by `boxes`, or all but what is to `avoid`; of `attention_pooling` and `prototype`.
        strength: of the attention's L2 penalty, see `sightline.training.heads.fit_attention`.
        layer: that the attention of `attention_pooling` reads; null = the last feature map. An earlier layer has finer places,
            at which masks are followed more closely.
    """

    name: Literal["linear", "attention_pooling", "prototype"] = "linear"
    region: Source = "masks"
    strength: Annotated[Real, Field(gt=0)] = 1e-2
    layer: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layer is not None and self.name != "attention_pooling":
            raise ValueError(
                f"head.layer is {self.layer!r}, which only attention_pooling reads; leave it out for {self.name}"
            )
        return self
