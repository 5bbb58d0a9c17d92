"""`train`: from a recipe to a finished run folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from sightline._core.devices import pick_device
from sightline._core.distributed import process_group_ended
from sightline._core.optional import requires_extra
from sightline._core.output_lock import holding_folder
from sightline._core.processes import check_processes, is_first_process
from sightline._core.signals import terminable
from sightline._core.strict import Overrides
from sightline.errors import SightlineError, UnwritableError
from sightline.runs.recipe import Recipe, read_recipe
from sightline.runs.run import EpochEnd, Run, now, surroundings
from sightline.runs.run_data import CONTENTS
from sightline.training.build import Parts, build
from sightline.training.checkpoint import Checkpoint
from sightline.training.loggers import Logger, Loggers


def train(
    recipe: str | Path | Recipe,
    overrides: Overrides = (),
    output: str | Path | None = None,
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    device: str | torch.device | None = None,
    watch: EpochEnd | None = None,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Train what a recipe describes, and write a run folder.

    Everything in the recipe is checked before the folder is made. A checkpoint follows every epoch; a run that was
    killed continues from there, and ends with the same weights.

    Args:
        recipe: a YAML file, the name of a recipe that sightline ships, or a `Recipe`.
        overrides: see `read_recipe`.
        output: the run folder; default: `runs/<name>-seed<seed>`. A folder that is not empty is never overwritten.
        resume: continue the run in `output`; if there is none yet, begin it.
        devices: number of GPUs, or of processes if there is no GPU, on each machine.
        nodes: number of machines, each started by torchrun or SLURM.
        device: the kind of device, such as "cpu", or one of them, such as "cuda:1"; None = GPUs if there are any.
        watch: called by every process when an epoch is written, with whether more is to come; what it raises ends the run.
        loggers: loggers with Fabric's interface, in addition to those of the recipe and the run folder.

    Returns:
        The finished run.

    Raises:
        SightlineError: something in the recipe, the data or the output folder is wrong; nothing has been written.
        NonFiniteLossError: the loss became NaN; names the images.
        OutputInUseError: another process trains in the output folder.
        RunFailedError: the run folder cannot be written any more.

    Examples:
        >>> small = ["data.copies=1", "train_fraction=0.1", "stages.0.epochs=1"]
        >>> run = sl.train("demo-cross-entropy", small, device="cpu")  # bundled images, a small network
        >>> run.last.exists()
        True
    """
    recipe = read_recipe(recipe, overrides)
    run = Run(Path(output or Path("runs") / f"{recipe.name}-seed{recipe.seed}"))
    with holding_folder(run.path) if is_first_process() else nullcontext(), terminable():
        _train(recipe, run, resume, devices, nodes, device, watch, loggers)
    return run


@process_group_ended()
def _train(
    recipe: Recipe,
    run: Run,
    resume: bool,
    devices: int,
    nodes: int,
    device: str | torch.device | None,
    watch: EpochEnd | None,
    loggers: Sequence[Logger],
) -> None:
    with requires_extra("train", "training"):
        from lightning_fabric import Fabric

        from sightline.training.loop import Trainer
        from sightline.training.processes import on_rank_zero

    run.prepare(recipe, resume)
    processes = devices * nodes
    check_processes(processes, f"devices={devices} x nodes={nodes}")
    place = None if device is None else pick_device(device)
    if place is not None and place.index is not None and processes > 1:
        raise SightlineError(
            f"device is {str(device)!r}, which is one device; expected its kind alone for {processes} of them"
        )
    parts = build(recipe, processes)
    data = {name: split.fingerprint for name, split in parts.splits.items()}
    checkpoint = _checkpoint(run, parts, data)

    fabric = Fabric(
        accelerator="auto" if place is None else place.type,
        devices=devices if place is None or place.index is None else [place.index],
        num_nodes=nodes,
        precision=recipe.precision,
    )
    fabric.launch()
    trackers = Loggers(run)
    if problem := on_rank_zero(fabric, lambda: trackers.open(recipe, loggers), SightlineError):
        raise SightlineError(problem)
    with trackers.closed():
        facts = parts.facts() | surroundings(processes, fabric.device) | trackers.facts
        if problem := on_rank_zero(fabric, lambda: run.begin(recipe, facts)):
            raise UnwritableError(problem)
        with _recorded(run, fabric.is_global_zero):
            trainer = Trainer(fabric, parts, run, trackers, checkpoint, watch)
            trainer.state.data = data
            trainer.fit()
            if fabric.is_global_zero:
                run.update(status="finished", finished=now(), **trainer.state.spent())


def _checkpoint(run: Run, parts: Parts, data: dict[str, str]) -> Checkpoint | None:
    """Return where an interrupted run resumes, with the objectives restored; None = the beginning.

    Args:
        run: the folder.
        parts: what the recipe names.
        data: the fingerprint of each split.

    Raises:
        SightlineError: the data is not what the run was begun with.
    """
    if not run.resume_point.exists():
        return None
    checkpoint = Checkpoint(run.resume_point)
    before = checkpoint.state.data
    for name in {**before, **data}:
        if before.get(name) != data.get(name):
            raise SightlineError(
                f"cannot resume {run.path}: the data of the split {name!r} changed since the run was trained; "
                "restore it, or train into another folder with --output"
            )
    recorded = run.facts.get(CONTENTS, {}) if (run.path / "run.json").exists() else {}
    for name, content in parts.contents.items():
        if recorded.get(name, content) != content:
            raise SightlineError(
                f"cannot resume {run.path}: files of the split {name!r} have the same names as before and other content; "
                "restore them, or train into another folder with --output"
            )
    checkpoint.restore_objectives(parts.objectives)
    return checkpoint


@contextmanager
def _recorded(run: Run, writes: bool) -> Iterator[None]:
    """Let run.json say how a run ended that did not finish."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = str(error) or ("interrupted" if interrupted else type(error).__name__)
        if writes:
            with suppress(SightlineError):  # a full disk is reported by the error itself
                run.update(status=f"failed: {reason}", finished=now())
        raise
