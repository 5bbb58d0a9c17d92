"""Two processes give the gradients of one, also where masks are spread unevenly; a bad loss stops both."""

import os
import socket
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import WORLD, gradients_of, in_two, join, share
from torch.nn.parallel import DistributedDataParallel

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import NonFiniteLossError

CASES = {
    "even": [True] * 6,
    "uneven": [True, False, True, True, True, False],
    "none on one process": [True, True, True, False, False, False],
    "none at all": [False] * 6,
}


def setting(has_mask: list[bool]) -> tuple[TinyCNN, Batch]:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of(size=6)
    batch.has_mask = torch.tensor(has_mask)
    return model, batch


def guide() -> sl.SegmentOverlap:
    return sl.SegmentOverlap(beta=0.4, views=2, blur=3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_ddp(rank: int, folder: str) -> None:
    join(rank, folder)
    for name, has_mask in CASES.items():
        for static in (False, True):
            model, batch = setting(has_mask)
            wrapped = DistributedDataParallel(sl.Objective(model, guide()), static_graph=static)
            wrapped(share(batch, rank))["loss"].backward()
            if rank == 0:
                torch.save(gradients_of(model), Path(folder) / f"{name}-{static}.pt")
    # Two batches that add up to one step, synchronised at the second.
    model, batch = setting(CASES["uneven"])
    wrapped = DistributedDataParallel(sl.Objective(model, guide()))
    mine = share(batch, rank)
    parts = [
        Batch(*(t[s] for t in (mine.images, mine.labels, mine.masks, mine.has_mask))) for s in (slice(2), slice(2, 3))
    ]
    counts = wrapped.module.counts(parts)
    with wrapped.no_sync():
        wrapped(parts[0], counts=counts)["loss"].backward()
    wrapped(parts[1], counts=counts)["loss"].backward()
    if rank == 0:
        torch.save(gradients_of(model), Path(folder) / "accumulated.pt")
    dist.destroy_process_group()


def test_plain_ddp_gives_the_gradients_of_one_process(tmp_path: Path) -> None:
    in_two(train_ddp, tmp_path)
    for name, has_mask in CASES.items():
        model, batch = setting(has_mask)
        sl.Objective(model, guide())(batch)["loss"].backward()
        for static in (False, True):
            for ours, one in zip(torch.load(tmp_path / f"{name}-{static}.pt"), gradients_of(model)):
                torch.testing.assert_close(ours, one, atol=1e-8, rtol=0)
        if name == "uneven":
            for ours, one in zip(torch.load(tmp_path / "accumulated.pt"), gradients_of(model)):
                torch.testing.assert_close(ours, one, atol=1e-8, rtol=0)


def train_fabric(port: int, rank: int, folder: str) -> None:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy

    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(WORLD)
    )
    for precision in ("64-true", "bf16-mixed"):
        strategy = DDPStrategy(cluster_environment=LightningEnvironment(), process_group_backend="gloo")
        fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=strategy, precision=precision)
        fabric.launch()
        model, batch = setting(CASES["uneven"])
        model = model.double() if precision == "64-true" else model.float()
        objective = sl.Objective(model, guide())
        optimizer = torch.optim.SGD(objective.parameters(), 0.1)
        wrapped, optimizer = fabric.setup(objective, optimizer)
        mine = share(batch, rank)
        if precision == "bf16-mixed":
            mine.images = mine.images.float()
        fabric.backward(wrapped(mine)["loss"])
        if rank == 0:
            torch.save(gradients_of(model), Path(folder) / f"{precision}.pt")
        optimizer.step()
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_fabric_gives_the_gradients_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    in_two(partial(train_fabric, free_port()), tmp_path)
    model, batch = setting(CASES["uneven"])
    sl.Objective(model, guide())(batch)["loss"].backward()
    for ours, one in zip(torch.load(tmp_path / "64-true.pt"), gradients_of(model)):
        torch.testing.assert_close(ours, one, atol=1e-8, rtol=0)
    for ours, one in zip(torch.load(tmp_path / "bf16-mixed.pt"), gradients_of(model)):
        torch.testing.assert_close(ours.double(), one, atol=0.05, rtol=0.2)


def stop_together(rank: int, folder: str) -> None:
    join(rank, folder)
    model, batch = setting(CASES["even"])
    mine = share(batch, rank)
    if rank == 1:
        with torch.no_grad():
            model.classifier.bias[0] = torch.inf
    # Not through DDP's constructor, which would copy rank 0's healthy weights.
    try:
        sl.Objective(model, guide())(mine)
    except NonFiniteLossError as error:
        Path(folder, f"{rank}.txt").write_text(repr(error.indices))
    dist.destroy_process_group()


def test_a_bad_loss_on_one_process_stops_both_and_names_its_images(tmp_path: Path) -> None:
    in_two(stop_together, tmp_path)
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text() == "[3, 4, 5]"
