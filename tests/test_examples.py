"""The four examples of other engines train the same network: what each prints, and what the page about them shows."""

import re
import runpy
from pathlib import Path

import pytest
import torch

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch

ROOT = Path(__file__).parents[1]
ENGINES = {
    "plain_loop": "torch",
    "fabric_loop": "lightning_fabric",
    "accelerate_loop": "accelerate",
    "lightning_module": "lightning",
}


def losses(example: str, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """What an example prints, on one thread of the processor, where sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runpy.run_path(str(ROOT / "examples" / f"{example}.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    return [float(value) for value in re.findall(r"^loss ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)]


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest) -> list[float]:
    """The plain loop's losses, once for all engines."""
    return []


@pytest.mark.parametrize("example", ENGINES)
def test_every_engine_prints_the_plain_loops_losses(
    example: str, plain: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    package = ENGINES[example]
    pytest.importorskip(package, reason=f"{package} is not installed: pip install --group test")
    if torch.cuda.is_available():
        pytest.skip("the engines' losses are compared on a processor, which adds in one order")
    plain.extend(plain or losses("plain_loop", capsys))
    found = plain if example == "plain_loop" else losses(example, capsys)
    assert len(found) > 5
    assert sum(found[-3:]) < sum(found[:3])
    assert found[: len(plain)] == pytest.approx(plain[: len(found)], abs=2e-3)


@pytest.mark.parametrize("example", ENGINES)
def test_an_example_is_short(example: str) -> None:
    assert len((ROOT / "examples" / f"{example}.py").read_text().splitlines()) < 60


def test_the_page_shows_the_examples_own_lines() -> None:
    page = (ROOT / "docs" / "how-to" / "engines.md").read_text()
    shown = re.findall(r"<!-- (\w+) -->\n\n?```py\n(.*?)```", page, re.DOTALL)
    assert {example for example, _ in shown} == ENGINES.keys()
    for example, block in shown:
        lines = {line.strip() for line in (ROOT / "examples" / f"{example}.py").read_text().splitlines()}
        assert [line for line in block.splitlines() if line.strip() not in lines] == []


def test_accelerate_accumulates_to_one_large_batch() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install --group test")
    batch = batch_of(size=6, dtype=torch.float32)
    batch.has_mask = torch.tensor([True, False, True, True, True, True])
    assert batch.masks is not None
    parts = [
        Batch(batch.images[part], batch.labels[part], batch.masks[part], batch.has_mask[part])
        for part in (slice(0, 2), slice(2, 6))
    ]
    model = TinyCNN()
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.4))
    objective(batch)["loss"].backward()
    whole = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    objective.zero_grad()

    accelerator = accelerate.Accelerator(cpu=True)
    wrapped = accelerator.prepare(objective)
    counts = objective.counts(parts)
    with accelerator.no_sync(wrapped):
        accelerator.backward(wrapped(parts[0], counts=counts)["loss"])
    accelerator.backward(wrapped(parts[1], counts=counts)["loss"])
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for one, other in zip(whole, found, strict=True):
        torch.testing.assert_close(other, one)
