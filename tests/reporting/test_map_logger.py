"""Maps in experiment trackers during training, read back from the files of each tracker."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import sightline as sl
from sightline.errors import SightlineError


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def batch() -> sl.Batch:
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    return sl.Batch(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), masks=masks)


def test_the_energy_is_that_of_the_metric_and_the_model_stays_in_training_mode() -> None:
    model, given, seen = network().train(), batch(), []
    log = sl.MapLogger(given, lambda image, values, step: seen.append((image, values, step)), layer="1", every=2)
    assert [bool(log(model, step)) for step in range(3)] == [True, False, True]
    assert [step for *_, step in seen] == [0, 2]
    image, values, _ = seen[0]
    assert isinstance(image, Image.Image)
    maps = sl.explain(model, given.images, targets=given.labels, layer="1")
    expected = (maps * given.masks).sum((1, 2)) / maps.sum((1, 2))
    assert values == {"maps/energy_in_mask": pytest.approx(float(expected.mean()), abs=1e-6)}
    assert model.training


def test_tensorboard_keeps_the_overlay_and_the_energy(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        values = sl.MapLogger(batch(), writer, layer="1")(network(), 3)
    events = EventAccumulator(str(tmp_path)).Reload()
    (scalar,) = events.Scalars("maps/energy_in_mask")
    assert (scalar.step, scalar.value) == (3, pytest.approx(values["maps/energy_in_mask"]))
    (image,) = events.Images("maps")
    assert image.step == 3
    assert image.width > image.height // 2


@pytest.mark.slow
def test_mlflow_keeps_the_overlay_and_the_energy(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    try:
        experiment = mlflow.create_experiment("maps", artifact_location=(tmp_path / "files").as_uri())
        with mlflow.start_run(experiment_id=experiment) as run:
            values = sl.MapLogger(batch(), mlflow, layer="1")(network(), 3)
        kept = mlflow.get_run(run.info.run_id).data.metrics
        assert kept["maps/energy_in_mask"] == pytest.approx(values["maps/energy_in_mask"])
        assert list((tmp_path / "files").rglob("*.png"))
    finally:
        mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_wandb_keeps_the_overlay_and_the_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="maps", mode="offline", dir=str(tmp_path), reinit="create_new")
    values = sl.MapLogger(batch(), run, layer="1")(network(), 3)
    assert run.summary["maps/energy_in_mask"] == pytest.approx(values["maps/energy_in_mask"])
    run.finish()
    assert list(tmp_path.rglob("media/images/*.png"))


@pytest.mark.parametrize("validates", [False, True])
def test_a_trainer_of_lightning_logs_once_an_epoch(tmp_path: Path, validates: bool) -> None:
    lightning = pytest.importorskip("lightning")
    seen = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.objective = sl.Objective(network(), sl.L1(), layer="1")

        def training_step(self, given: sl.Batch, number: int) -> torch.Tensor:
            return self.objective(given)["loss"]

        def validation_step(self, given: sl.Batch, number: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    log = sl.MapLogger(batch(), lambda image, values, step: seen.append((step, values)), layer="1")
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[log.lightning_callback()],
        limit_val_batches=1 if validates else 0,
    )  # fmt: skip
    batches = torch.utils.data.DataLoader([batch()], batch_size=None)
    trainer.fit(Module(), batches, batches if validates else None)
    assert [step for step, _ in seen] == [0, 1]
    assert seen[0][1].keys() == {"maps/energy_in_mask"}


def test_something_else_than_a_tracker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SightlineError, match="to is a int; expected a SummaryWriter"):
        sl.MapLogger(batch(), 3)
    for module in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SightlineError, match="pip install 'lightning"):
        sl.MapLogger(batch(), print).lightning_callback()
