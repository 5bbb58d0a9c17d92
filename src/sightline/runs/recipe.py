"""A recipe: everything that decides a run, read from strict YAML."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from sightline._core.strict import (
    Count,
    Overrides,
    Positive,
    Real,
    StrictDocument,
    apply_overrides,
    name_or_mapping,
    read_mapping,
)
from sightline.errors import SightlineError, unknown_name
from sightline.runs.recipe_parts import (
    Data,
    EarlyStopping,
    Evaluation,
    FeatureCache,
    MaskQuality,
    Model,
    Optimizer,
    Tracker,
    Watch,
)
from sightline.runs.stage import Schedule, Stage


class Recipe(StrictDocument):
    """Everything that decides a training run, with the keys of a recipe's YAML file.

    Attributes:
        name: name of the run.
        seed: random seed of weights, order, augmentation and everything else that is random.
        data: the dataset and its options.
        train_samples: a CSV file whose column `index` names the training images that are used, by their places in the split; a
            class in its column `pseudo_label` counts instead of the label (see `Subset`). null uses them all.
        train_fraction: share of the training images that are used, equal in every class, drawn by the seed; a larger share
            contains a smaller one.
        mask_fraction: share of the training images' masks that training sees; a larger share contains a smaller one.
        mask_quality: a change of these masks, such as their quality; null leaves them unchanged.
        image_size: side of the input in pixels; null takes the model's own.
        model: the model and its weights.
        guide: the guide: null, a name, a mapping with `name` and options, or a list whose guides are summed.
        view_chunk: number of a guide's views in one forward pass, which bounds memory; null takes all at once.
        batch_size: number of images in one forward pass, over all processes together.
        gradient_accumulation: number of forward passes per optimizer step.
        augment: the augmentation: options of `sightline.data.transforms.train_transform`.
        stages: the stages of training, in order.
        optimizer: the optimizer; its learning rate is that of the stage.
        label_smoothing: share of the target that is spread evenly over all classes; where images can have several labels, over
            the two answers for each class. Szegedy et al. 2016 ("Rethinking the Inception Architecture for Computer Vision")
            take 0.1.
        schedule: learning rate schedule of every stage that names none.
        precision: number format of training, by the name in Lightning Fabric.
        grad_clip_norm: largest norm of the gradient; null clips nothing.
        early_stopping: when to stop before the last epoch; null trains every epoch.
        val_interval: number of epochs between two validations; the last epoch of a stage is always validated.
        save_best: the metric by which `best.safetensors` is kept; null keeps the last checkpoint alone.
        drop_last: leave out the last batch of an epoch if it is not full; every epoch leaves out other images.
        num_workers: number of processes that load data, for each training process.
        cache_images: decode every training image once, and keep it in memory, together with its stored map.
        feature_cache: where stages with `cache_features` keep features, and how much they may take.
        maps: a folder of stored maps of the training images, which go with them as `Batch.maps`; null reads none.
        evaluation: what `sightline evaluate` measures after training.
        loggers: experiment trackers that get every epoch and the final values, like the run folder: `wandb` and `mlflow`,
            each alone or with options.

    Examples:
        >>> recipe = sl.Recipe(
        ...     name="mine",
        ...     data={"name": "folder", "root": "photos"},
        ...     model={"name": "timm/resnet18", "weights": "default"},
        ...     guide={"name": "segment_overlap", "beta": 0.5},
        ...     stages=[{"epochs": 5, "lr": 1e-4}],
        ... )
        >>> recipe.batch_size
        32
        >>> sl.Recipe(name="mine", stages=[])
        Traceback (most recent call last):
        ...
        sightline.errors.SightlineError: recipe: data is missing; model is missing; ...
    """

    noun: ClassVar[str] = "recipe"

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    seed: Count = 0
    data: Annotated[Data, BeforeValidator(name_or_mapping)]
    train_samples: str | None = None
    train_fraction: Annotated[Real, Field(gt=0, le=1)] = 1.0
    mask_fraction: Annotated[Real, Field(ge=0, le=1)] = 1.0
    mask_quality: Annotated[MaskQuality | None, BeforeValidator(name_or_mapping)] = None
    image_size: Positive | None = None
    model: Annotated[Model, BeforeValidator(name_or_mapping)]
    guide: Any = None
    view_chunk: Positive | None = None
    batch_size: Positive = 32
    drop_last: Annotated[bool, Field(strict=True)] = False
    gradient_accumulation: Positive = 1
    augment: dict[str, Any] = Field(default_factory=dict)
    stages: Annotated[list[Stage], Field(min_length=1)]
    optimizer: Annotated[Optimizer, BeforeValidator(name_or_mapping)] = Optimizer()
    schedule: Annotated[Schedule, BeforeValidator(name_or_mapping)] = Schedule()
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    grad_clip_norm: Annotated[Real, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    val_interval: Positive = 1
    save_best: Watch | None = None
    num_workers: Count = 0
    cache_images: Annotated[bool, Field(strict=True)] = False
    feature_cache: FeatureCache = FeatureCache()
    maps: str | None = None
    evaluation: Evaluation = Evaluation()
    loggers: list[Annotated[Tracker, BeforeValidator(name_or_mapping)]] = Field(default_factory=list)

    @field_validator("loggers")
    @classmethod
    def _once(cls, loggers: list[Tracker]) -> list[Tracker]:
        names = [tracker.name for tracker in loggers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"loggers: {name} comes twice; keep one entry")
        return loggers

    def guide_of(self, stage: Stage) -> Any:
        """Return the configuration of a stage's guide."""
        return self.guide if stage.guide == "inherit" else stage.guide


def read_recipe(source: str | Path | Recipe, overrides: Overrides = ()) -> Recipe:
    """Read a recipe from a YAML file or from the package, with keys overridden.

    Args:
        source: a path, the name of a recipe that sightline ships, or a recipe.
        overrides: texts `key.sub=value` with the value in YAML, or a mapping of dotted keys to values; a number
            steps into a list, as in `stages.0.epochs=2`.

    Raises:
        SightlineError: names what cannot be read, the unknown key with the nearest one, or the value out of range.
    """
    if isinstance(source, Recipe):
        values = source.model_dump(mode="json")
    else:
        path = _find(source)
        values = read_mapping(path, f"recipe {path}")
    apply_overrides(values, overrides)
    return Recipe(**values)


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes in the package, by name."""
    folder = Path(str(files("sightline"))) / "recipes" / "run"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(source: str | Path) -> Path:
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SightlineError(f"recipe: there is no file {str(source)!r}; `sightline list recipes` has those that ship")
    raise unknown_name("recipe", str(source), shipped)
