"""From a recipe to what it names. Every error of a recipe is found here, before a run begins."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import ImageDataset
from sightline.data.files import locate
from sightline.data.loader import create_loader
from sightline.data.map_store import MapStore
from sightline.data.mixing import Mixer
from sightline.data.transforms import augmentation
from sightline.datasets.derived.mask_quality import DegradedMasks
from sightline.errors import SightlineError
from sightline.explainers.places import refuse_few_places
from sightline.explainers.registry import EXPLAINERS
from sightline.finetuning.portion import check_layer
from sightline.guides import from_config
from sightline.guides.annotations import check_annotations
from sightline.guides.measured_weights import StageWeights
from sightline.localization.found_masks import CutBoxes, FoundMasks
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompter
from sightline.metric_base.registry import METRICS
from sightline.models.loading import check_name
from sightline.network.input_spec import InputSpec
from sightline.network.modes import evaluating
from sightline.network.tap import StillStatistics
from sightline.objectives.base import Guide, GuideSum
from sightline.objectives.check import check_model, trains_on_maps
from sightline.objectives.objective import Objective
from sightline.runs.recipe import Recipe
from sightline.runs.run_data import CONTENTS, FINGERPRINTS, training_images
from sightline.runs.stage import Stage
from sightline.training.cached_stage import check_cached_stages
from sightline.training.convex_checks import check_convex_guides, prepare_heads
from sightline.training.loggers import check_installed
from sightline.training.portion import Portion
from sightline.training.watched_values import check_watched


@dataclass(frozen=True)
class Parts:
    """What a recipe names, made.

    Attributes:
        recipe: where it comes from.
        splits: the data.
        fingerprints: of the splits, before the recipe took training images or masks away.
        contents: likewise, of the splits that have files.
        model: the classifier, which every objective shares.
        spec: what it expects as input, at the size that the recipe trains on.
        objectives: one a stage; stages with the same guide share theirs.
        initial: the model's weights before training, where a stage begins with them.
    """

    recipe: Recipe
    splits: Splits
    fingerprints: dict[str, str]
    contents: dict[str, str]
    model: nn.Module
    spec: InputSpec
    objectives: list[Objective]
    initial: dict[str, Tensor]

    def train_loader(self, rank: int, world_size: int) -> "DataLoader[Sample]":
        """Shuffled and augmented, in batches that make up the recipe's over all processes."""
        r = self.recipe
        return create_loader(
            self.splits["train"], size=self.spec.size[0], batch_size=r.batch_size // world_size, train=True, seed=r.seed,
            num_workers=r.num_workers, augment=r.augment, cache=r.cache_images, rank=rank, world_size=world_size,
            drop_last=r.drop_last, maps=None if r.maps is None else MapStore(locate(r.maps, "maps")),
        )  # fmt: skip

    def plain_loader(self, split: str, rank: int, world_size: int) -> "DataLoader[Sample]":
        """Return a loader of a split in order, without augmentation."""
        r = self.recipe
        return create_loader(
            self.splits[split], size=self.spec.size[0], batch_size=max(1, r.batch_size // world_size), train=False,
            num_workers=r.num_workers, rank=rank, world_size=world_size,
        )  # fmt: skip

    def blank(self) -> Tensor:
        """Return a black image (1, C, H, W) of the size that the recipe trains on, on the model's device."""
        like = next(self.model.parameters())
        return torch.zeros(1, len(self.spec.mean), *self.spec.size, dtype=like.dtype, device=like.device)

    def mixer(self, stage: Stage) -> Mixer | None:
        """Return the mixer of a stage's batches; None if the stage does not mix."""
        if stage.mixing is None:
            return None
        return Mixer(**stage.mixing.model_dump(), classes=len(self.splits.classes), seed=self.recipe.seed)

    @property
    def validation(self) -> list[str]:
        """The validation splits: those whose name begins with val."""
        return [name for name in self.splits if name.startswith("val")]

    def facts(self) -> dict[str, Any]:
        """Return the facts about the data for a run's record."""
        r = self.recipe
        layers = [objective.layer for objective in self.objectives if objective.layer is not None]
        return {
            "name": r.name,
            "seed": r.seed,
            "classes": self.splits.classes,
            "group_names": self.splits.groups,
            "input_spec": {"mean": self.spec.mean, "std": self.spec.std, "size": self.spec.size},
            "model": {"name": r.model.name, "layer": layers[-1] if layers else r.model.layer},
            "guide": _guide_name(r.guide),
            "data": {"name": r.data.name, **self.splits.describe()},
            FINGERPRINTS: self.fingerprints,
            CONTENTS: self.contents,
        }


def build(recipe: Recipe, processes: int = 1) -> Parts:
    """Make what a recipe names: the cheap checks first, then the data, then the model.

    Args:
        recipe: what to make.
        processes: over which a batch is divided.

    Raises:
        SightlineError: names what is wrong.
    """
    check_names(recipe)
    if recipe.batch_size % processes:
        raise SightlineError(
            f"batch_size is {recipe.batch_size}; {processes} processes cannot share it evenly; choose a multiple of {processes}"
        )
    splits = recipe.data.create()
    fingerprints = {name: split.fingerprint for name, split in splits.items()}
    contents = {name: split.content for name, split in splits.items() if split.content is not None}
    splits["train"] = annotated = training_images(recipe, splits["train"])
    splits["train"] = remasked(splits["train"], recipe)
    if recipe.mask_fraction > 0:  # a run that asks for no masks gets none
        annotated = splits["train"]
    _check_watched(recipe, splits)
    _check_balanced(recipe, splits)
    _check_averaging(recipe)

    torch.manual_seed(recipe.seed)  # of the head, and of all weights where none are loaded
    model, spec = recipe.model.load(splits.classes, recipe.image_size)
    model.to(memory_format=torch.channels_last)  # the same numbers, a third less time in convolutions on most hardware
    prepare_heads(recipe, splits, model)
    objectives: list[Objective] = []
    configs = [recipe.guide_of(stage) for stage in recipe.stages]
    for number, config in enumerate(configs):
        first = configs.index(config)
        if first == number:
            options: dict[str, Any] = {"layer": recipe.model.layer, "view_chunk": recipe.view_chunk}
            options["label_smoothing"] = recipe.label_smoothing
            objectives.append(Objective(model, from_config(config), input_spec=spec, **options))
        else:
            objectives.append(objectives[first])
    for number, stage in enumerate(recipe.stages):
        check_convex_guides(stage, objectives[number], f"stages.{number}")
        if stage.first_layer is not None:
            check_layer(model, stage.first_layer, f"stages.{number}.trainable.from")
            Portion(stage, objectives[number], spec.size)
    for objective in objectives:
        if splits["train"].multi_label:
            objective.check_multi_label()
    for objective in dict.fromkeys(objectives):
        check_annotations(objective, annotated, maps=recipe.maps is not None)
    _check_first_guide(recipe, objectives[0])
    _check_mixing(recipe, objectives)
    again = any(stage.start == "initial" for stage in recipe.stages)
    initial = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()} if again else {}
    parts = Parts(recipe, splits, fingerprints, contents, model, spec, objectives, initial)
    parts.train_loader(0, processes)  # knows the options of augment, and whether the maps are of this data
    if any(stage.cache_features is not None for stage in recipe.stages):
        validation = {name: parts.plain_loader(name, 0, 1) for name in parts.validation}
        check_cached_stages(recipe, objectives, spec.size, parts.train_loader(0, 1), validation, processes)
    if last_batch_size(recipe, len(splits["train"]), processes) == 1:
        _check_single_image(parts, processes)
    taps = [objective.tap for objective in objectives if objective.tap is not None]
    if taps:
        images = spec.normalize(next(iter(parts.plain_loader("train", 0, 1))).images[:2])
        refuse_few_places(taps[0], images)
        if any(trains_on_maps(objective) for objective in objectives):
            check_model(model, recipe.model.layer, images)
    return parts


def _check_single_image(parts: Parts, processes: int) -> None:
    """Reject a last batch of one image where a stage cannot train on it."""
    recipe, count = parts.recipe, len(parts.splits["train"])
    each = recipe.batch_size // processes
    remedy = (
        f"batch_size is {recipe.batch_size}; expected at least {2 * processes}"
        if each == 1
        else f"{count} training images in batches of {recipe.batch_size} leave one of one image: set drop_last=true, or "
        "another batch_size"
    )
    image = parts.spec.normalize(next(iter(parts.plain_loader("train", 0, 1))).images[:1])
    for stage, objective in zip(recipe.stages, parts.objectives):
        if stage.trainable != "head" and stage.batch_norm == "train":  # else it is in eval mode
            check_single_image(objective, image, remedy, Portion(stage, objective, parts.spec.size).train)


def check_names(recipe: Recipe) -> None:
    """Reject unknown names and missing files, without making anything large."""
    check_name(recipe.model.name)
    weights = recipe.model.weights
    if weights is not None and weights != "default":
        locate(weights, "model.weights")
    DATASETS[recipe.data.name]
    check_installed(recipe.loggers)
    check_guides(recipe)
    augmentation(recipe.augment, size=1)
    for name in recipe.evaluation.explainers or []:
        EXPLAINERS[name]
    for name in recipe.evaluation.metrics or []:
        METRICS[name]


def check_guides(recipe: Recipe) -> None:
    """Reject a guide that cannot be made, or not in a sum."""
    for config in [recipe.guide, *map(recipe.guide_of, recipe.stages)]:
        guide = from_config(config)
        for _, each in guide.summands if isinstance(guide, GuideSum) else []:
            each.loss_weights(alone=False)  # rejects options that a guide has only where it is alone


def _check_watched(recipe: Recipe, splits: Splits) -> None:
    for name in recipe.evaluation.splits or []:
        splits[name]
    for key, watch in [("save_best", recipe.save_best), ("early_stopping", recipe.early_stopping)]:
        if watch is None:
            continue
        check_watched(f"{key}.metric", watch.metric, splits)


def _check_balanced(recipe: Recipe, splits: Splits) -> None:
    for number, stage in enumerate(recipe.stages):
        if stage.balance_by == "groups" and splits["train"].group_ids is None:
            raise SightlineError(
                f"stages.{number}.balance_by is 'groups', but {recipe.data.name!r} has none; use 'classes', or remove the key"
            )
        if stage.balance_by == "classes":
            splits["train"].check_single_label(f"stages.{number}.balance_by: classes")


def _check_mixing(recipe: Recipe, objectives: list[Objective]) -> None:
    for number, (stage, objective) in enumerate(zip(recipe.stages, objectives)):
        if stage.mixing is not None and stage.cache_features is not None:
            raise SightlineError(
                f"stages.{number}.mixing needs pixels, and cache_features keeps none; leave out one of them"
            )
        for guide in objective.guides if stage.mixing is not None else []:
            weighs = getattr(type(guide), "sample_weights", None) is not Guide.sample_weights
            if weighs or getattr(type(guide), "transform", None) is not Guide.transform:
                raise SightlineError(
                    f"stages.{number}.mixing cannot go with {type(guide).__name__}, which {'weighs' if weighs else 'changes'} "
                    "single images, and a mixed image is of two; leave out one of them"
                )


def _check_first_guide(recipe: Recipe, objective: Objective) -> None:
    for guide in objective.guides:
        if isinstance(guide, StageWeights) and recipe.model.weights in (None, "default"):
            raise SightlineError(
                f"the first stage has the guide {type(guide).__name__}, which weighs images by a trained model; expected a "
                "stage before it, or model.weights of a trained model"
            )


def _check_averaging(recipe: Recipe) -> None:
    for number, stage in enumerate(recipe.stages):
        if stage.averaging is not None and isinstance(stage.averaging.alpha, list) and recipe.save_best is None:
            raise SightlineError(
                f"stages.{number}.averaging.alpha is {stage.averaging.alpha}; expected one number, or a metric to choose by: "
                "set save_best"
            )


def _guide_name(config: Any) -> str:
    if isinstance(config, Mapping):
        scale = config.get("scale")
        return config["name"] if scale is None else f"{scale} {config['name']}"
    if isinstance(config, list):
        return " + ".join(map(_guide_name, config)) or "none"
    return config or "none"


def last_batch_size(recipe: Recipe, images: int, processes: int) -> int:
    """Return how many images the smallest batch of an epoch has on each process."""
    size = recipe.batch_size // processes
    return size if recipe.drop_last else math.ceil(images / processes) % size or size


def check_single_image(
    objective: Objective, image: Tensor, remedy: str, train: Callable[[], object] | None = None
) -> None:
    """Reject a model that cannot train on one image, as batch norm cannot on a map of one place.

    Args:
        objective: the model with the views of its guides, which go through it together.
        image: (1, C, H, W) as the model takes it.
        remedy: what to do, for the message.
        train: puts what is trained in training mode; None = the whole model is trained.

    Raises:
        SightlineError: the model cannot.
    """
    views = len(objective.views)
    together = views % (objective.view_chunk or views) or objective.view_chunk or views
    model: nn.Module = objective.model
    try:
        with evaluating(objective), torch.random.fork_rng(devices=[]), StillStatistics(model), torch.no_grad():
            (train or model.train)()
            model(image.repeat(together, 1, 1, 1))
    except ValueError as error:
        raise SightlineError(f"a batch of one image cannot be trained on ({error}). {remedy}") from error


def remasked(images: ImageDataset, recipe: Recipe) -> ImageDataset:
    """Return the training images with the masks that `mask_quality` and `mask_fraction` ask for."""
    quality = recipe.mask_quality
    if quality is None:
        return images if recipe.mask_fraction == 1 else _fewer(images, recipe)
    if quality.name == "found":
        images = FoundMasks(images, *_prompts(recipe))
    elif quality.name == "box_cut":
        images = CutBoxes(images)
    else:
        options = quality.model_dump(exclude={"name"})
        return DegradedMasks(images, fraction=recipe.mask_fraction, quality=quality.name, seed=recipe.seed, **options)
    return images if recipe.mask_fraction == 1 else _fewer(images, recipe)


def _fewer(images: ImageDataset, recipe: Recipe) -> ImageDataset:
    return DegradedMasks(images, fraction=recipe.mask_fraction, seed=recipe.seed)


def _prompts(recipe: Recipe) -> tuple[Prompter, object]:
    """Return what tells where objects are: the Grad-CAM of the model as its weights are, or the center without weights."""
    if recipe.model.weights is None:
        prompter = Prompter(center=True)
    else:
        model, spec = recipe.model.load(size=recipe.image_size)
        prompter = Prompter(ExplainedMaps(model.eval(), spec, "gradcam", recipe.model.layer))
    return prompter, prompter.facts
