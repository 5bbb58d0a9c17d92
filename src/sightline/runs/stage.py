"""The stages of a recipe, and what decides one: schedule, averaging, mixing and the head that is fitted."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from sightline._core.strict import Positive, Real, StrictModel, name_or_mapping
from sightline.regions.batch_regions import Source

Share = Annotated[Real, Field(ge=0, le=1)]


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


class Head(StrictModel):
    """What `fit: convex` fits behind the frozen trunk.

    Attributes:
        name: `linear`: the classifier's own last layer; `attention_pooling`: an attention that is the object's mask is fitted
            first, and the last layer then gets the mean of the last feature map weighted by the attention's square; or
            `prototype`: the class whose mean feature, pooled over the object, is the nearest (Snell et al. 2017).
        region: the object by its `masks` or by `boxes`, or all but what is to `avoid`; of `attention_pooling` and `prototype`.
        strength: of the attention's L2 penalty, see `sightline.heads.fit_attention`.
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


class Stage(StrictModel):
    """A part of the training with its own optimiser.

    Attributes:
        fit: `gradient`, or `convex`: the head alone is fitted to the optimum of its loss on features of the frozen trunk. Such
            a stage has one row in metrics.csv. It takes `passes`, `strength`, `head`, `balance_by` and guides that change
            images; labels are not smoothed.
        epochs: passes over the training split, of `gradient`.
        lr: the learning rate that the schedule starts from, of `gradient`.
        passes: of `convex`, how often every image is drawn, with other augmentation and other image changes by guides.
        strength: of `convex`, the L2 penalty of the last layer, see `sightline.heads.fit_linear`; `auto` = the one of
            `sightline.heads.STRENGTHS` with the best accuracy, which is that of `save_best`; without it, on the first
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
            are those of `sightline.finetuning.depth.parameters_by_depth`. 1 = the same for all. Papers take 0.65 (Bao et al.
            2022, "BEiT") or 0.75 (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners").
        batch_norm: `train`, or `frozen`: batch norm keeps its statistics, scale and shift, as in fine-tuning detectors from
            ImageNet weights (He et al. 2017, "Mask R-CNN"). What guides add is never frozen.
        averaging: null takes the trained weights unchanged.
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


CONVEX = ("passes", "strength", "head")
GRADIENT = ("epochs", "lr", "schedule", "layer_decay", "batch_norm", "averaging", "mixing", "cache_features")
"""The keys of a stage that only one kind of fit uses."""
