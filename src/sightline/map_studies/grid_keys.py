"""What a grid is made of: its keys, its parts, and whose maps it measures."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sightline._core.strict import Count, Positive, StrictModel
from sightline.errors import SightlineError
from sightline.inference.precision import Precision
from sightline.studies.image_study import ImageStudy
from sightline.studies.study import (
    LabelledModel,
    check_labels,
    labelled,
    scale_count,
)


class Rows(StrictModel):
    """Whose maps are judged: an explainer by name, a function, or maps that were made before.

    Attributes:
        label: what the table calls it.
        name: of an explainer.
        options: of the explainer.
        layer: where it takes its maps; null takes the model's.
        function: `module:function`, called as `function(model, inputs, targets)` (see `FunctionExplainer`).
        maps: a .npy file with maps (N, h, w) of the split's images.
        features: the target of LOTS where it comes from training images of a class: `class` or `mean`.
        target: the class that the maps are about, which `features` looks up: `predicted` or `label`; null takes the label for
            `features`, else the grid's. Scores are always about the grid's.
        num_images: how many images it sees, the first of those that all see; null takes all of them.
    """

    label: str
    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    layer: str | None = None
    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    maps: str | None = None
    features: Literal["class", "mean"] | None = None
    target: Literal["predicted", "label"] | None = None
    num_images: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key in ("name", "function", "maps") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{self.label}: {' and '.join(given) or 'nothing'} is given; expected name, function or maps"
            )
        if self.name is None and (self.options or self.features or self.layer):
            raise ValueError(f"{self.label}: options, layer and features are for an explainer by name")
        if self.maps is not None and self.target:
            raise ValueError(
                f"{self.label}: target is {self.target}; the maps have their classes already; remove the key target"
            )
        return self

    @property
    def explained(self) -> Literal["predicted", "label"] | None:
        """The class that the maps are about; None = the grid's target."""
        return self.target or ("label" if self.features else None)


class GridKeys(ImageStudy):
    """The keys of a grid.

    Attributes:
        num_images: how many images are drawn; null takes all. A smaller number is part of a larger one.
        batch: images that are explained together.
        models: what is explained.
        explainers: whose maps are judged.
        metrics: metric -> its options.
        target: the class that scores are about, and maps unless a row says otherwise: `predicted` or `label`.
        contrast: maps explain why it is that class and not the likeliest other one.
        gallery: how many images are kept with their maps.
        compiled: let torch.compile make the metrics' calls to the model faster.
        precision: `bf16` runs models under bfloat16 autocast; what that changes on some images stands below the table.
        paper_values: model -> explainer -> metric -> the paper's figure.
    """

    num_images: Positive | None = None
    batch: Positive = 16
    models: Annotated[list[LabelledModel], Field(min_length=1)]
    explainers: Annotated[list[Annotated[Rows, BeforeValidator(labelled)]], Field(min_length=1)]
    metrics: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    target: Literal["predicted", "label"] = "predicted"
    contrast: Annotated[bool, Field(strict=True)] = False
    gallery: Count = 12
    compiled: Annotated[bool, Field(strict=True)] = False
    precision: Precision = "fp32"
    paper_values: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("models", [model.label for model in self.models])
        check_labels("explainers", [row.label for row in self.explainers])
        return self

    def parts(self) -> list[str]:
        """One explainer on one model each; under the model's own name, what no map plays a part in."""
        rows = ["", *(f"/{row.label}" for row in self.explainers)]
        return [f"{model.label}{row}" for row in rows for model in self.models]

    def scaled(self, scale: float) -> Self:
        """Fewer images."""
        if scale == 1:
            return self
        if self.num_images is None:
            raise SightlineError(
                "--scale takes a share of `num_images`, which is null (all images): give num_images=NUMBER instead"
            )
        rows = [
            row if row.num_images is None else row.model_copy(update={"num_images": scale_count(row.num_images, scale)})
            for row in self.explainers
        ]
        return self.model_copy(update={"num_images": scale_count(self.num_images, scale), "explainers": rows})
