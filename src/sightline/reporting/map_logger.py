"""Saliency maps during training: overlays of fixed images and their energy on the object, in an experiment tracker."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import nn

from sightline._core.checks import check_count
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.explainers import Explainer, explain
from sightline.metrics.localization import energy_in_mask
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.tap import unwrap
from sightline.reporting.overlay import show
from sightline.reporting.tiles import draw_tiles


class Sink(Protocol):
    """Where an image and values go."""

    def __call__(self, image: Image.Image, values: dict[str, float], step: int) -> None:
        """Keep them for a step."""


class MapLogger:
    """Explain the same images again and again during training, and log overlays and the energy on the object.

    Call it after an epoch: `log(model, epoch)`. A Lightning trainer takes `log.lightning_callback()`.

    Args:
        batch: the images to explain, in [0, 1] with an input spec; with masks, the energy on the object is logged too.
        to: where to log: a `SummaryWriter` of TensorBoard, a run of W&B, the module `mlflow` (its active run), a logger of
            Lightning, or a function `(image, values, step)`; or a list of these.
        method: the explainer or its name.
        layer: the target layer; None chooses by the model's family.
        input_spec: normalizes the images inside.
        every: log only each `every`-th call, the first included.
        name: what the image and the values are called.

    Raises:
        SightlineError: `to` is none of these, or an argument is not as above.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> batch = sl.Batch(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), masks=torch.ones(2, 16, 16))
        >>> log = sl.MapLogger(batch, lambda image, values, step: print(step, image.size), layer="0")
        >>> for epoch in range(2):
        ...     values = log(model, epoch)  # after training for an epoch
        0 (632, 660)
        1 (632, 660)
    """

    def __init__(
        self,
        batch: Batch,
        to: Any,
        *,
        method: str | Explainer = "gradcam",
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        every: int = 1,
        name: str = "maps",
    ) -> None:
        check_count(every=every)
        if batch.images.shape[1] not in (1, 3):
            raise SightlineError(f"batch.images have {batch.images.shape[1]} channels; expected 1 (gray) or 3 (color)")
        given: Sequence[Any] = to if isinstance(to, list | tuple) else [to]
        self.batch, self.sinks = batch, [sink_of(each, name) for each in given]
        self.method, self.layer, self.input_spec = method, layer, input_spec
        self.every, self.name = every, name
        self._calls = 0

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Explain and log.

        Args:
            model: the classifier, or a wrapper such as DDP; it stays unchanged, its mode included.
            step: the epoch or step, the axis of the tracker.

        Returns:
            What was logged, by name; nothing where this call is passed over.
        """
        self._calls += 1
        if (self._calls - 1) % self.every:
            return {}
        model = unwrap(model)
        device = next((p.device for p in model.parameters()), self.batch.images.device)
        batch = self.batch.to(device)
        labels = None if batch.multi_label else batch.labels
        maps = explain(model, batch.images, self.method, labels, self.layer, self.input_spec)
        values: dict[str, float] = {}
        if batch.masks is not None:
            energy = energy_in_mask(maps, batch.masks, batch.has_mask, labels)
            if not energy.isnan().all():
                values[f"{self.name}/energy_in_mask"] = float(energy.nanmean())
        overlay = show(_pixels(batch), maps)
        image = draw_tiles(overlay.columns, overlay.titles)
        for sink in self.sinks:
            sink(image, values, step)
        return values

    def lightning_callback(self) -> Any:
        """Return a callback of Lightning that logs after each validation, or after each epoch of a training without one.

        The module's classifier is `module.objective`, else `module.model`, else the module itself. Only the first process logs.
        """
        pytorch = _lightning()
        log = self

        class MapCallback(pytorch.Callback):  # type: ignore[name-defined]
            """Logs maps through a `MapLogger`."""

            def on_validation_epoch_end(self, trainer: Any, module: nn.Module) -> None:
                if not trainer.sanity_checking:
                    self._log(trainer, module)

            def on_train_epoch_end(self, trainer: Any, module: nn.Module) -> None:
                if not trainer.enable_validation or not trainer.num_val_batches:
                    self._log(trainer, module)

            def _log(self, trainer: Any, module: nn.Module) -> None:
                if trainer.is_global_zero:
                    log(_classifier(module), trainer.current_epoch)

        return MapCallback()


def sink_of(target: Any, name: str) -> Sink:
    """Return the function that logs to an experiment tracker, told by what the tracker can do.

    Args:
        target: see `MapLogger`.
        name: of the image.

    Raises:
        SightlineError: the target is no tracker.
    """
    if hasattr(target, "experiment") and hasattr(target, "log_metrics"):  # a logger of Lightning
        run = getattr(target, "run_id", None)
        if run is not None and hasattr(target.experiment, "log_image"):
            return _mlflow_client(target.experiment, run, name)
        return sink_of(target.experiment, name)
    if hasattr(target, "add_image") and hasattr(target, "add_scalar"):
        return _tensorboard(target, name)
    if type(target).__module__.partition(".")[0] == "wandb" and hasattr(target, "log"):
        return _wandb(target, name)
    if getattr(target, "__name__", "") == "mlflow":
        return _mlflow(target, name)
    if callable(target):
        return target
    raise SightlineError(
        f"to is a {type(target).__name__}; expected a SummaryWriter, a run of W&B, the module mlflow, a logger of Lightning, "
        "or a function (image, values, step)"
    )


def _tensorboard(writer: Any, name: str) -> Sink:
    def log(image: Image.Image, values: dict[str, float], step: int) -> None:
        writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return log


def _wandb(run: Any, name: str) -> Sink:
    def log(image: Image.Image, values: dict[str, float], step: int) -> None:
        import wandb

        run.log({name: wandb.Image(image), **values, "epoch": step})

    return log


def _mlflow(module: Any, name: str) -> Sink:
    def log(image: Image.Image, values: dict[str, float], step: int) -> None:
        module.log_image(image, key=name, step=step)
        module.log_metrics(values, step=step)

    return log


def _mlflow_client(client: Any, run: str, name: str) -> Sink:
    def log(image: Image.Image, values: dict[str, float], step: int) -> None:
        client.log_image(run, image, key=name, step=step)
        for key, value in values.items():
            client.log_metric(run, key, value, step=step)

    return log


def _pixels(batch: Batch) -> Any:
    """Return the images in [0, 1]: stretched one by one where they are normalized already."""
    images = batch.images.detach().float()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    if low.min() >= 0 and high.max() <= 1:
        return images
    return (images - low) / (high - low).clamp_min(1e-12)


def _classifier(module: nn.Module) -> nn.Module:
    objective = getattr(module, "objective", None)
    if hasattr(objective, "unwrap_model"):
        return objective.unwrap_model()  # type: ignore[union-attr]
    inner = getattr(module, "model", module)
    return inner if isinstance(inner, nn.Module) else module


def _lightning() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise SightlineError(
        "lightning_callback needs Lightning, which is not installed: pip install 'lightning>=2.5,!=2.6.2,!=2.6.3'"
    )
