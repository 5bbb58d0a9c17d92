"""Averages of the weights of a stage, against closed forms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import identical
from test_checkpoint import stop_after as stop_after
from torch import Tensor

import sightline as sl
from sightline.errors import SightlineError
from sightline.runs.load_run import load_run
from sightline.training import loop
from sightline.training.build import build
from sightline.training.validation import validate
from tiny import recipe

HEAD, ALL = {"epochs": 1, "lr": 1e-2, "trainable": "head"}, {"epochs": 2, "lr": 1e-2}
COMMON: dict[str, Any] = {"model": "sightline/small_cnn", "guide": None}


def trained(tmp_path: Path, name: str, *stages: dict[str, Any], **changes: Any) -> Any:
    return sl.train(recipe(**COMMON, **changes, stages=list(stages)), output=tmp_path / name)


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("decay", [0.999, 0.6])
def test_moving_average_of_weights_and_statistics_follows_the_decay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: float
) -> None:
    seen = [{name: t.clone() for name, t in build(recipe(**COMMON, stages=[ALL])).model.state_dict().items()}]
    step = loop.Trainer.train_step

    def record(trainer: loop.Trainer, batches: list[Any], objective: sl.Objective, *rest: Any) -> Any:
        outputs = step(trainer, batches, objective, *rest)
        seen.append({name: t.detach().clone() for name, t in objective.model.state_dict().items()})
        return outputs

    monkeypatch.setattr(loop.Trainer, "train_step", record)
    run = trained(tmp_path, "run", ALL | {"averaging": {"name": "ema", "decay": decay}})
    assert len(seen) == 7
    # At 0.999, 1 - 1 / (t + 1) is always the smaller: the mean of all weights. At 0.6 it is so at the first step alone.
    shares = [1 / 7] * 7 if decay == 0.999 else [0.5 * 0.6**5, 0.5 * 0.6**5, *(0.4 * 0.6**k for k in (4, 3, 2, 1, 0))]
    assert sum(shares) == pytest.approx(1)
    after = load_file(run.last)
    for name, tensor in after.items():
        if tensor.is_floating_point():
            expected = sum(share * weights[name] for share, weights in zip(shares, seen))
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert tensor == seen[-1][name]


def test_the_average_is_validated_and_starts_the_next_stage(tmp_path: Path) -> None:
    ema = ALL | {"averaging": "ema"}
    one = trained(tmp_path, "one", ema)
    loaded = load_run(one, device="cpu")
    parts = build(one.recipe)
    fabric = loop.Fabric(accelerator="cpu", devices=1)
    objective = sl.Objective(loaded.model, input_spec=loaded.input_spec)
    figures = validate(fabric, objective, parts.plain_loader("val", 0, 1), parts.splits["val"])
    assert float(one.rows[-1]["val/loss"]) == pytest.approx(figures["loss"], rel=1e-5)
    still = {"epochs": 1, "lr": 1e-12, "batch_norm": "frozen"}
    both = trained(tmp_path, "both", ema, still)
    assert_close(load_file(one.last), load_file(both.last))


def test_wise_ft_weights_are_between_the_probe_and_the_tuned_network(tmp_path: Path) -> None:
    probe = load_file(trained(tmp_path, "probe", HEAD).last)
    tuned = load_file(trained(tmp_path, "tuned", HEAD, ALL).last)
    run = trained(tmp_path, "between", HEAD, ALL | {"averaging": {"name": "wise_ft", "alpha": 0.3}})
    assert [row["alpha"] for row in run.rows] == ["", "0.3", "0.3"]
    for name, tensor in load_file(run.last).items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.7 * probe[name] + 0.3 * tuned[name], rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert tensor == tuned[name]


def test_validation_chooses_alpha(tmp_path: Path) -> None:
    alphas, watch = [0.0, 0.4, 0.8], {"metric": "val/loss", "mode": "min"}
    losses = {}
    for alpha in alphas:
        run = trained(tmp_path, f"fixed{alpha}", HEAD, ALL | {"averaging": {"name": "wise_ft", "alpha": alpha}})
        losses[alpha] = [float(row["val/loss"]) for row in run.rows]
    chosen = trained(
        tmp_path, "chosen", HEAD, ALL | {"averaging": {"name": "wise_ft", "alpha": alphas}}, save_best=watch
    )
    for epoch in (1, 2):
        best = min(alphas, key=lambda alpha: losses[alpha][epoch])
        assert float(chosen.rows[epoch]["alpha"]) == best
        assert float(chosen.rows[epoch]["val/loss"]) == losses[best][epoch]
    assert len({losses[alpha][2] for alpha in alphas}) == 3
    assert losses[0.0][1] == losses[0.0][2]  # the probe
    best = float(chosen.rows[2]["alpha"])
    assert identical(chosen.last, tmp_path / f"fixed{best}" / "checkpoints" / "last.safetensors")


@pytest.mark.parametrize(
    ("averaging", "epochs"), [("ema", 2), ("ema", 3), ({"name": "wise_ft", "alpha": [0.2, 0.9]}, 2)], ids=str
)
def test_a_resumed_run_ends_bit_for_bit_alike(tmp_path: Path, stop_after: Any, averaging: Any, epochs: int) -> None:
    average = ALL | {"averaging": averaging}
    r = recipe(
        **COMMON, stages=[HEAD, average, average | {"epochs": 1}], save_best={"metric": "val/loss", "mode": "min"}
    )
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(epochs, recipe=r, output=tmp_path / "parts")
    resumed = sl.train(r, output=tmp_path / "parts", resume=True)
    assert identical(whole.last, resumed.last)
    assert identical(whole.best, resumed.best)
    assert [row | {"seconds": 0} for row in whole.rows] == [row | {"seconds": 0} for row in resumed.rows]


def test_an_epoch_without_validation_has_weights_too(tmp_path: Path) -> None:
    probe = load_file(trained(tmp_path, "probe", HEAD).last)
    stage = ALL | {"averaging": {"name": "wise_ft", "alpha": [0.0, 1.0]}}

    class Stop(Exception):
        """Ends the run after its second epoch."""

    def stop(more: bool) -> None:
        if len(sl.Run(tmp_path / "run").rows) == 2:
            raise Stop

    r = recipe(**COMMON, stages=[HEAD, stage], val_interval=5, save_best={"metric": "val/accuracy"})
    with pytest.raises(Stop):
        sl.train(r, output=tmp_path / "run", watch=stop)
    last = load_file(sl.Run(tmp_path / "run").last)
    assert all(torch.equal(last[name], tensor) for name, tensor in probe.items() if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("averaging", "message"),
    [
        ("swa", r"stages\.0\.averaging\.name is 'swa'"),
        ({"name": "ema", "decay": 1.0}, r"stages\.0\.averaging\.decay"),
        ({"name": "wise_ft", "alpha": 1.5}, r"stages\.0\.averaging\.alpha"),
        ({"name": "wise_ft", "alpha": []}, r"stages\.0\.averaging\.alpha"),
        ({"name": "wise_ft", "alpha": [0.1, 2]}, r"stages\.0\.averaging\.alpha"),
        ({"name": "wise_ft", "alpha": [0.1, 0.2]}, r"stages\.0\.averaging\.alpha is \[0\.1, 0\.2\].*set save_best"),
    ],
    ids=str,
)
def test_averaging_invalid_stages_raise(tmp_path: Path, averaging: Any, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        trained(tmp_path, "run", ALL | {"averaging": averaging})


def test_a_stage_on_kept_features_averages_as_one_on_images(tmp_path: Path) -> None:
    stage = {"epochs": 2, "lr": 1e-2, "trainable": "head", "averaging": "ema"}
    images = trained(tmp_path, "images", stage)
    kept = trained(tmp_path, "kept", stage | {"cache_features": 2})  # a draw an epoch
    assert_close(load_file(images.last), load_file(kept.last))
    assert float(images.rows[-1]["val/loss"]) == pytest.approx(float(kept.rows[-1]["val/loss"]), rel=1e-4)
