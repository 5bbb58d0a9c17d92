"""A stage that is trained from features: whether it can be, how much the features take, and what stands for its images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sightline._core.free_space import free_disk, free_memory, in_units
from sightline.data.batch import Batch
from sightline.data.dataset import Sample
from sightline.data.loader import EpochSampler, Transformed
from sightline.errors import SightlineError
from sightline.finetuning.trunk import Trunk
from sightline.network.input_spec import to_inputs
from sightline.objectives.base import Guide
from sightline.objectives.objective import Objective
from sightline.runs.recipe import Recipe
from sightline.runs.recipe_parts import FeatureCache
from sightline.runs.stage import Stage
from sightline.training.feature_batch import FeatureBatch
from sightline.training.feature_cache import FeatureStore, Precision, cached_activations
from sightline.training.portion import Portion

Loader = DataLoader[Sample]


@dataclass
class Feed:
    """What a stage trains and validates with.

    Attributes:
        module: takes the batches in training.
        batches: of an epoch of training.
        validation: the batches of each validation split.
        replaying: entered around the model's run on a validation batch.
    """

    module: nn.Module
    batches: Iterable[Batch]
    validation: Mapping[str, Iterable[Batch]]
    replaying: Callable[[Batch], AbstractContextManager[None]] = lambda batch: nullcontext()


@dataclass(frozen=True)
class Amount:
    """How much the features of a stage take.

    Attributes:
        stage: its number, from 0.
        place: the layers behind which the features are.
        images: for training.
        draws: of each of them.
        draw: bytes of one draw of all images.
        validation: bytes of the features of the validation splits.
        folder: where they are kept; None = in memory.
    """

    stage: int
    place: str
    images: int
    draws: int
    draw: int
    validation: int
    folder: Path | None

    @property
    def total(self) -> int:
        """Bytes of all features."""
        return self.draws * self.draw + self.validation

    @property
    def memory(self) -> int:
        """Bytes that are in memory at a time."""
        return self.total if self.folder is None else self.draw + self.validation

    def __str__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''} of {self.images} images"
        return f"stages.{self.stage}.cache_features: {draws} behind {self.place} take {in_units(self.total)} {where}"


def check_cached_stages(
    recipe: Recipe,
    objectives: list[Objective],
    size: tuple[int, int],
    loader: Loader,
    validation: Mapping[str, Loader],
    processes: int,
) -> None:
    """Reject stages that cannot be trained from features, or whose features do not fit into memory.

    Args:
        recipe: with the stages.
        objectives: one a stage.
        size: (height, width) of the images.
        loader: of the training images.
        validation: the loader of each validation split.
        processes: that train together.

    Raises:
        SightlineError: names the stage and what is in its way.
    """
    amounts = []
    for number, (stage, objective) in enumerate(zip(recipe.stages, objectives)):
        if stage.cache_features is not None:
            _check_stage(f"stages.{number}.cache_features is {stage.cache_features}", stage, objective, processes)
            with _in_stage(stage, objective, size):
                trunk = _trunk(objective, _some_images(loader))
                amounts.append(_amount(number, stage, trunk, objective, loader, validation, recipe.feature_cache))
    for amount in amounts:
        _check_amount(amount, recipe.feature_cache.max_gb)
    on_disk = [amount for amount in amounts if amount.folder is not None]
    if on_disk and (needed := sum(a.total for a in on_disk)) > (free := free_disk(cast(Path, on_disk[0].folder))):
        raise SightlineError(
            f"{on_disk[0]}, {in_units(needed)} for all stages, and {in_units(free)} are free there. {CURE}"
        )


def cached_feed(
    number: int,
    stage: Stage,
    first_epoch: int,
    objective: Objective,
    loader: Loader,
    validation: Mapping[str, Loader],
    cache: FeatureCache,
    device: torch.device,
    precision: Precision,
) -> tuple[Feed, Amount]:
    """Return what a stage trains with instead of its images, and how much it will take.

    Args:
        number: of the stage, from 0.
        stage: with `cache_features`.
        first_epoch: of the stage.
        objective: as the stage trains it, on the device.
        loader: of the training images, balanced as the stage has it.
        validation: the loader of each validation split.
        cache: where the features are kept.
        device: of the model.
        precision: the context to compute features in.
    """
    trunk = _trunk(objective, _some_images(loader).to(device))
    draws = cast(int, stage.cache_features)
    folder = None if cache.folder is None else Path(cache.folder)

    def features(images: Loader, complete: bool = False, draws: int = 1) -> FeatureLoader:
        store = cached_activations(
            objective, images, trunk, folder=folder, complete=complete, device=device, precision=precision
        )
        return FeatureLoader(images, store, draws)

    feed = Feed(
        TailObjective(objective, trunk),
        features(loader, first_epoch + stage.epochs > draws, draws),
        {split: features(images) for split, images in validation.items()},
        lambda batch: trunk.replaying(cast(FeatureBatch, batch).features),
    )
    return feed, _amount(number, stage, trunk, objective, loader, validation, cache)


CURE = "Take fewer draws, smaller images or a later layer"


def _check_stage(is_asked: str, stage: Stage, objective: Objective, processes: int) -> None:
    if stage.trainable == "all":
        raise SightlineError(
            f"{is_asked} and trainable is 'all'; expected 'head' or {{from: LAYER}}, because features can be kept of a frozen "
            "part only"
        )
    if processes > 1:
        raise SightlineError(f"{is_asked} and {processes} processes are to train; expected one process")
    for guide in objective.guides:
        if isinstance(guide, Guide) and guide.needs_pixels:
            raise SightlineError(
                f"{is_asked}, and {type(guide).__name__} needs the pixels of the images in every step; expected a stage "
                "without cache_features, or another guide"
            )
    if len(objective.views) > 1:
        raise SightlineError(
            f"{is_asked}, and the guide looks at {len(objective.views)} views of every image; expected one view (views: 1)"
        )


def _check_amount(amount: Amount, max_gb: float) -> None:
    if amount.total > max_gb * 1e9:
        raise SightlineError(
            f"{amount}; expected at most feature_cache.max_gb, which is {max_gb:g}. {CURE}, or raise it"
        )
    free = free_memory()
    if free is not None and amount.memory > free:
        disk = ", or give feature_cache.folder to keep them on disk" if amount.folder is None else ""
        raise SightlineError(
            f"{amount}, {in_units(amount.memory)} in memory at a time, and {in_units(free)} are free. {CURE}{disk}"
        )


@contextmanager
def _in_stage(stage: Stage, objective: Objective, size: tuple[int, int]) -> Iterator[None]:
    """Freeze a model as a stage does, for a while."""
    modules, parameters = list(objective.modules()), list(objective.parameters())
    modes, flags = [module.training for module in modules], [parameter.requires_grad for parameter in parameters]
    portion = Portion(stage, objective, size)
    portion.release([parameter for parameter in objective.model.parameters() if parameter.requires_grad])
    portion.train()
    try:
        yield
    finally:
        for module, training in zip(modules, modes):
            module.training = training
        for parameter, flag in zip(parameters, flags):
            parameter.requires_grad_(flag)


def _some_images(loader: Loader) -> Batch:
    """Three training images, repeated where there are fewer."""
    return cast(Batch, loader.collate_fn([loader.dataset[0, number % _count(loader)] for number in range(3)]))


def _trunk(objective: Objective, batch: Batch) -> Trunk:
    """Return the trunk of a model that is frozen as a stage has it."""
    inputs = to_inputs(batch.images, objective.input_spec)
    tapped = None
    if objective.tap is not None and any(isinstance(g, Guide) and g.needs_tap for g in objective.guides):
        objective.tap.resolve_default(inputs)
        tapped = objective.layer
    return Trunk(objective.unwrap_model(), tapped, inputs)


def _amount(
    number: int,
    stage: Stage,
    trunk: Trunk,
    objective: Objective,
    loader: Loader,
    validation: Mapping[str, Loader],
    cache: FeatureCache,
) -> Amount:
    """How much the features of a stage take, by those of a few images."""
    batch = _some_images(loader).to(next(objective.model.parameters()).device)
    rows = FeatureBatch.of(batch, trunk(to_inputs(batch.images, objective.input_spec)))
    row = _bytes(rows.tensors.values()) // len(rows)
    images = _count(loader)
    return Amount(
        stage=number,
        place=", ".join(trunk.names),
        images=images,
        draws=min(cast(int, stage.cache_features), stage.epochs),
        draw=row * images,
        validation=sum(map(_count, validation.values())) * _bytes(rows.features) // len(rows),
        folder=None if cache.folder is None else Path(cache.folder),
    )


def _count(loader: Loader) -> int:
    return len(cast(Transformed, loader.dataset))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class TailObjective(nn.Module):
    """An objective that takes features: the frozen trunk does not run.

    Args:
        objective: its parameters are those of this module.
        trunk: where the features come from.
    """

    def __init__(self, objective: Objective, trunk: Trunk) -> None:
        super().__init__()
        self.objective = objective
        self._trunk = trunk

    def forward(self, batch: FeatureBatch, counts: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the result of `Objective.forward` for the images of these features."""
        with self._trunk.replaying(batch.features):
            return self.objective(batch, counts=counts, replayed=True)


class FeatureLoader:
    """Batches of features instead of a loader's batches of images; epoch e takes draw e mod K.

    The images of an epoch come in the order in which the loader would give them. Below K, epoch and draw are the same.

    Args:
        loader: of the images.
        store: of its draws; complete, where there are more epochs than draws.
        draws: K.
    """

    def __init__(self, loader: "DataLoader[Sample]", store: FeatureStore, draws: int) -> None:
        self._loader, self._store, self._draws = loader, store, draws

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[FeatureBatch]:
        epoch = cast(EpochSampler, self._loader.sampler).epoch
        rows = self._store.draw(epoch % self._draws)
        torch.empty((), dtype=torch.int64).random_()  # as a DataLoader does, so dropout draws the same numbers
        size = cast(int, self._loader.batch_size)
        for places in self._places(rows, epoch)[: len(self) * size].split(size):
            yield rows.rows(places)

    def _places(self, rows: FeatureBatch, epoch: int) -> Tensor:
        """Where the images of an epoch are among the rows, in their order."""
        order = [index for _, index in self._loader.sampler]
        if epoch < self._draws:
            return torch.arange(len(order))
        assert rows.indices is not None
        place = {index: number for number, index in reversed(list(enumerate(rows.indices.tolist())))}
        return torch.tensor([place[index] for index in order])
