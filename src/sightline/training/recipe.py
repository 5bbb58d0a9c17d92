"""A recipe: everything that decides a run, read from strict YAML."""

import math
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sightline._core.strict import (
    Count,
    Overrides,
    Positive,
    Real,
    StrictDocument,
    StrictModel,
    apply_overrides,
    name_or_mapping,
    read_mapping,
)
from sightline.data import DATASETS, Splits
from sightline.errors import SightlineError, unknown_name
from sightline.network.precision import Precision
from sightline.training.recipe_parts import Head, MaskQuality, Tracker

Mode = Literal["max", "min"]
Share = Annotated[Real, Field(ge=0, le=1)]


class Data(BaseModel):
    """A dataset by its registered name; every other key is an option of that dataset.

    Attributes:
        name: Name of the dataset (`sightline list datasets`).
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the data set's factory gets."""
        return dict(self.model_extra or {})

    def create(self) -> Splits:
        """Create the dataset.

        Raises:
            SightlineError: there is no such dataset or option, or its files are missing.
        """
        return DATASETS.create(self.name, **self.options)


class Model(StrictModel):
    """A model for `sightline.load_model`, and its target layer.

    Attributes:
        name: `timm/NAME`, `torchvision/NAME`, `sightline/NAME`, `hf:FOLDER` or `package.module:function`.
        weights: `default` (the pretrained weights of the library) or a checkpoint file; null initializes at random.
        layer: Name of the target layer, whose maps guides use; null chooses it by the family of the model.
    """

    name: str
    weights: str | None = None
    layer: str | None = None


class Schedule(StrictModel):
    """How the learning rate runs over a stage.

    Attributes:
        name: `constant`, `cosine` (to 0 at the stage's end) or `step` (times `factor` every `every` epochs).
        warmup: Share of the steps of the stage over which the rate first rises linearly from 0.
        every: Epochs between two decreases, of `step`.
        factor: What the rate is multiplied by at each decrease, of `step`.
    """

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    every: Positive = 30
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.1


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


class Averaging(StrictModel):
    """Which weights a stage stands for: they are validated, written as checkpoints, and what the next stage begins with.

    Attributes:
        name: `ema`, the exponential moving average of the weights over the steps (Tarvainen & Valpola 2017, "Mean teachers are
            better role models"), or `wise_ft`, weights between those at the stage's start, such as a probe's, and the trained
            ones (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
        decay: of `ema`, 0.999 in the paper; at step t at most 1 - 1 / (t + 1), the mean of all weights so far.
        alpha: of `wise_ft`, the share of the trained weights; the paper recommends 0.5. Of a list, every validation takes the
            one that is best by `save_best`.
    """

    name: Literal["ema", "wise_ft"]
    decay: Annotated[Real, Field(gt=0, lt=1)] = 0.999
    alpha: Share | Annotated[list[Share], Field(min_length=1)] = 0.5


def _trainable(value: Any) -> Any:
    named = isinstance(value, dict) and list(value) == ["from"] and isinstance(value["from"], str) and value["from"]
    if not (value == "all" or value == "head" or named):
        raise PydanticCustomError("trainable", "expected 'all' or 'head', or a mapping with from, the name of a layer")
    return value


class Mixing(StrictModel):
    """Images of a batch mixed in pairs, as `sightline.data.mixing.Mixer` does it, with masks, boxes and maps.

    Attributes:
        mixup: alpha of mixup; 0 = none. Zhang et al. 2018 take 0.2 on ImageNet, and 1 on CIFAR.
        cutmix: alpha of CutMix; 0 = none. Yun et al. 2019 take 1. With both, each batch takes one of them by chance.
        probability: that a batch is mixed.
    """

    mixup: Annotated[Real, Field(ge=0)] = 0.0
    cutmix: Annotated[Real, Field(ge=0)] = 0.0
    probability: Share = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.mixup or self.cutmix):
            raise ValueError("mixing: mixup and cutmix are 0; expected an alpha above 0 for one of them, or null")
        return self


class Stage(StrictModel):
    """A part of the training with its own optimiser.

    Attributes:
        fit: `gradient`, or `convex`: the head alone is fitted to the optimum of its loss on features of the frozen trunk. Such
            a stage has one row in metrics.csv. It takes `passes`, `strength`, `head`, `balance_by` and guides that change
            images; labels are not smoothed.
        epochs: passes over the training split, of `gradient`.
        lr: the learning rate that the schedule starts from, of `gradient`.
        passes: of `convex`, how often every image is drawn, with other augmentation and other image changes by guides.
        strength: of `convex`, the L2 penalty of the last layer, see `sightline.training.heads.fit_linear`; `auto` = the one of
            `sightline.training.heads.STRENGTHS` with the best accuracy, which is that of `save_best`; without it, on the first
            validation split, in the worst group or class where `balance_by` balances them.
        head: of `convex`.
        trainable: `all`; `head`, the classifier; or `{from: LAYER}`, the layer of that name and everything that runs after it.
            What a guide adds is trained too. The rest is frozen, and its BatchNorm and dropout act as in evaluation.
        guide: `inherit` takes the recipe's; null trains on the task alone; else as the recipe's.
        schedule: null takes the recipe's.
        balance_by: draw as often from each of the data's `groups` or `classes` in an epoch, which keeps its length; a frozen
            trunk on balanced groups is last-layer retraining (Kirichenko et al. 2023, "Last Layer Re-Training is Sufficient for
            Robustness to Spurious Correlations"). null draws every image once. With `fit: convex` all are drawn, and weighted.
        layer_decay: the learning rate of each layer is that of the layer after it times this; the classifier has `lr`. Layers
            are those of `sightline.network.depth.parameters_by_depth`. 1 = the same for all. Papers take 0.65 (Bao et al. 2022,
            "BEiT") or 0.75 (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners").
        batch_norm: `train`, or `frozen`: batch norm keeps its statistics, scale and shift, as in fine-tuning detectors from
            ImageNet weights (He et al. 2017, "Mask R-CNN"). What guides add is never frozen.
        averaging: null takes the weights as they are trained.
        mixing: null mixes nothing; else mixup, CutMix or both. Guides that weigh images or change them cannot take part.
        start: `previous` continues from the stage before; `initial` begins again from the weights that the first stage began
            with, as the second training of JTT (Liu et al. 2021) does. Guides measure the previous model before.
        cache_features: K, with a frozen part: what it gives is computed once for each image in each of K draws of augmentation
            and of the guides' changes of images, and kept; see `feature_cache`. Epoch e of the run takes draw e mod K. null
            runs the frozen part in every step.
    """

    fit: Literal["gradient", "convex"] = "gradient"
    epochs: Positive = 1
    lr: Annotated[Real, Field(gt=0)] | None = None
    passes: Positive = 1
    strength: Literal["auto"] | Annotated[Real, Field(gt=0)] = "auto"
    head: Annotated[Head, BeforeValidator(name_or_mapping)] = Head()
    trainable: Annotated[Literal["all", "head"] | dict[str, str], BeforeValidator(_trainable)] = "all"
    guide: Any = "inherit"
    schedule: Annotated[Schedule | None, BeforeValidator(name_or_mapping)] = None
    balance_by: Literal["groups", "classes"] | None = None
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = 1.0
    batch_norm: Literal["train", "frozen"] = "train"
    averaging: Annotated[Averaging | None, BeforeValidator(name_or_mapping)] = None
    mixing: Mixing | None = None
    start: Literal["previous", "initial"] = "previous"
    cache_features: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Demand what a stage by gradients needs; `convex` trains the head."""
        if not isinstance(values, dict):
            return values
        if values.get("fit", "gradient") == "convex":
            return {"trainable": "head"} | values
        if missing := [key for key in ("epochs", "lr") if values.get(key) is None]:
            raise ValueError(f"stages: {' and '.join(missing)} missing in a stage; only fit: convex needs none")
        return values

    @model_validator(mode="after")
    def _only_its_own_keys(self) -> "Stage":
        plain = Stage.model_fields
        others = CONVEX if self.fit == "gradient" else GRADIENT
        for key in others:
            if getattr(self, key) != plain[key].default:
                raise ValueError(
                    f"stages: {key} is {getattr(self, key)!r} in a stage with fit: {self.fit}, which has no use for it"
                )
        if self.fit == "convex" and self.trainable != "head":
            raise ValueError(f"stages: trainable is {self.trainable!r}; fit: convex trains the head")
        return self

    @property
    def start_lr(self) -> float:
        """The learning rate of a stage by gradients."""
        assert self.lr is not None  # the schema demands it
        return self.lr

    @property
    def first_layer(self) -> str | None:
        """The layer that is trained first, where the stage names one."""
        return self.trainable["from"] if isinstance(self.trainable, dict) else None


class FeatureCache(StrictModel):
    """Where stages with `cache_features` keep what the frozen part gives.

    Attributes:
        folder: on disk, one draw in memory at a time; a run that was killed, and later runs with the same frozen part, data,
            augmentation and changes of images by guides, continue with what is there. null keeps all draws in memory.
        max_gb: the most that the features of a stage may take, in 10^9 bytes; more is rejected before the run begins.
    """

    folder: str | None = None
    max_gb: Annotated[Real, Field(gt=0)] = 4.0


CONVEX = ("passes", "strength", "head")
GRADIENT = ("epochs", "lr", "schedule", "layer_decay", "batch_norm", "averaging", "mixing", "cache_features")
"""The keys of a stage that only one kind of fit uses."""


class Watch(StrictModel):
    """A validation metric, and which end of it is good.

    Attributes:
        metric: Split and metric, such as `val/accuracy`.
        mode: `max` if larger values are better, `min` if smaller values are.
    """

    metric: str
    mode: Mode = "max"

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
        loggers: experiment trackers that get every epoch and the final figures, beside the run folder: `wandb` and `mlflow`,
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
                raise ValueError(f"loggers: {name} comes twice")
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
        raise SightlineError(f"recipe: there is no file {str(source)!r}")
    raise unknown_name("recipe", str(source), shipped)
