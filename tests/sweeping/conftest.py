import gc

import pytest
import torch
from swept import RECIPE, SPACE

from sightline.runs import Run
from sightline.sweeping import Sweep, storage, trial


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A dead process is known as such at once; no waiting for garbage; one thread."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # after each trial, and slower than these
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def made():
    """A sweep with these keys changed."""
    return lambda **changes: Sweep(**({"name": "dots", "recipe": RECIPE, "space": SPACE, "pruning": None} | changes))


@pytest.fixture
def closed_form(monkeypatch):
    """Put a function of (recipe, epoch) in the place of training: what it gives is written as val/accuracy."""

    def install(figure):
        def train(recipe, output, resume, watch):
            assert resume
            run = Run(output)
            run.path.mkdir(parents=True, exist_ok=True)
            (run.path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
            epochs = recipe.stages[0].epochs
            for epoch in range(len(run.rows) + 1, epochs + 1):
                run.log({"epoch": epoch, "val/accuracy": figure(recipe, epoch), "seconds": 2.0 * epoch})
                watch(epoch < epochs)
            return run

        monkeypatch.setattr(trial, "train", train)

    return install
