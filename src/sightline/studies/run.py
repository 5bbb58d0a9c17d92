"""`reproduce`: computes and keeps a study's parts, and writes its results next to the paper's."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import torch

from sightline._core.checks import check_fraction
from sightline._core.devices import pick_device
from sightline._core.files import write_atomically
from sightline._core.output_lock import holding_folder
from sightline._core.processes import without_launcher
from sightline._core.progress import ProgressBar
from sightline._core.shared_work import Processes, alone, processes
from sightline.errors import MissingFileError, OutputInUseError, SightlineError, UnwritableError
from sightline.reporting.plots.drawing import png
from sightline.studies.folder import StudyFolder
from sightline.studies.sharing import share
from sightline.studies.spreading import Outcome, spread
from sightline.studies.study import Part, Study, read_study

Devices = Sequence[str | torch.device]


def reproduce(
    paper: str,
    item: str,
    overrides: Sequence[str] = (),
    *,
    scale: float = 1.0,
    output: str | Path | None = None,
    device: str | torch.device | None = None,
    devices: Devices | None = None,
    search: bool = False,
) -> Path:
    """Make a table or figure of a paper again.

    Every finished part of the work is kept in the output folder. A later call continues from there.

    Args:
        paper: short name, such as `lots`.
        item: the table or figure, such as `table-5.3`; `sightline list recipes` lists them.
        overrides: `key.sub=value` each, such as `data.path=images.csv`.
        scale: share of the protocol's images or repetitions, in (0, 1]; the report states it.
        output: the folder; None = runs/reproduce/PAPER/ITEM, with the scale added where it is not 1.
        device: None = a GPU where there is one.
        devices: several devices over which the runs of a table are spread, instead of `device`; see `run_study`.
        search: let validation choose what the paper searched, and train with that; for items whose `steps` have a search.

    Returns:
        The folder: table.csv, report.md, figures, and the parts.

    Raises:
        SightlineError: no such item or key, data or weights are missing, or the folder holds another study.
    """
    check_fraction("(0, 1]", scale=scale)
    changes = [*overrides, *(["search=true"] if search else [])]
    study = read_study(paper, item, changes).scaled(scale)
    called = f"{item}{'-search' if search else ''}{'' if scale == 1 else f'-scale{scale:g}'}"
    place = default_folder(paper, called) if output is None else Path(output)
    return run_study(study, place, scale=scale, device=device, devices=devices)


def default_folder(paper: str, item: str) -> Path:
    """Return where a paper's table or figure is made unless something else is said."""
    return Path("runs", "reproduce", paper, item)


def run_study(
    study: Study,
    output: Path,
    *,
    scale: float = 1.0,
    device: str | torch.device | None = None,
    devices: Devices | None = None,
    only: Sequence[str] | None = None,
) -> Path:
    """Do what is not done yet of a study's parts, and write its results.

    A part that fails costs what needs it and not the study: the report names what was left out, with the reason, and the next
    call tries it again. Missing data or weights are no error as long as some part is done; another failure is raised at the
    end, when everything else is done.

    Several processes that share work (`torchrun -m sightline reproduce`) divide the runs of a table among them, or the images
    of a grid. The first one writes the table.

    Args:
        study: any study.
        output: the folder, which may hold parts of the same study already.
        scale: the share of the protocol that the study was scaled to, for the report.
        device: None = a GPU where there is one.
        devices: instead of `device`: a process for each of them, such as `["cuda:0", "cuda:1"]` or `["cpu", "cpu"]`, works off
            the runs of a table; every process does one run at a time. The table is that of one process. A process that is
            killed costs its unfinished run, which resumes from its last epoch in the next call.
        only: do these parts, and those that they need; None = all.

    Returns:
        The folder.

    Raises:
        OutputInUseError: another process works on the folder.
        UnwritableError: the disk is full, or a file cannot be written.
        MissingFileError: data or weights of all parts are missing.
        SightlineError: the folder holds another study; or the first failure of a part.
    """
    places = [pick_device(device)] if devices is None else [pick_device(each) for each in devices]
    if devices is not None and (device is not None or not places):
        raise SightlineError(f"devices is {list(devices)} and device is {device!r}; give one device, or a list of them")
    if len(places) > 1 and not study.independent_runs:
        raise SightlineError(
            f"devices names {len(places)} devices, and {study.called} is of the kind {study.kind!r}; only the runs of a table "
            "(kind training_runs) are spread over several. Give one device"
        )
    group = processes()
    if group.size > 1:
        _check_shared(study, devices, group)
    with group.together(), holding_folder(output) if group.is_first else nullcontext():
        return _run(study, StudyFolder(output, study, scale), places, only, group)


def _check_shared(study: Study, devices: Devices | None, group: Processes) -> None:
    """Reject what several processes that share work cannot divide."""
    if devices is not None:
        raise SightlineError(
            f"devices is {list(devices)}, and {group.size} processes share the work already; leave out devices"
        )
    if not (study.independent_runs or study.shared_images):
        raise SightlineError(
            f"{group.size} processes were launched, and {study.called} is of the kind {study.kind!r}; several processes share "
            "the runs of a table (kind training_runs) and the images of a grid. Give the command without torchrun"
        )


def _run(
    study: Study, folder: StudyFolder, places: list[torch.device], only: Sequence[str] | None, group: Processes
) -> Path:
    group.once(folder.check)
    done = folder.finished()
    group.join([])  # all have read what is finished before one writes more
    wanted = set(study.parts()) if only is None else _with_needs(study, only)
    missing = [name for name in study.parts() if name in wanted and name not in done]
    failed: SightlineError | None = None
    if missing:
        # Before the folder is made: what is missing then leaves nothing behind.
        with ExitStack() as stack:
            if study.independent_runs:
                stack.enter_context(alone())
                stack.enter_context(without_launcher())
            work = study.prepare(places[0] if len(places) == 1 else torch.device("cpu"), folder.path)
        group.once(folder.begin)
        with ProgressBar(True, study.called, len(study.parts()), len(done)) as bar:

            def show(doing: str) -> None:
                bar.update(description=f"{study.called}: {doing}")

            if len(places) > 1:
                outcomes = spread(folder, missing, places, show)
            elif group.size > 1 and study.independent_runs:
                outcomes = share(folder, missing, work, places[0], group, show)
            else:
                outcomes = _one_by_one(folder, missing, work, places[0], show)
            with closing(outcomes):
                for name, outcome in outcomes:
                    if isinstance(outcome, Part):
                        done[name] = outcome
                        done = {each: done[each] for each in study.parts() if each in done}
                    else:
                        folder.missing[name] = str(outcome)
                        failed = failed or (None if isinstance(outcome, MissingFileError) else outcome)
                    bar.advance()
                    if group.is_first:
                        folder.report(done)
    if failed is None and folder.missing and not done.keys() - _steps(study):
        raise MissingFileError(f"{study.called}: {'; '.join(dict.fromkeys(folder.missing.values()))}")
    if group.is_first:
        _write_results(study, folder, done)
    if failed is not None:
        raise failed
    return folder.path


def _write_results(study: Study, folder: StudyFolder, done: dict[str, Part]) -> None:
    """Write the plots of a study that is complete and its report, and print what was left out."""
    if set(study.parts()) <= set(done):
        for name, figure in study.figures(done).items():
            write_atomically(folder.path / name, png(figure))
    folder.report(done)
    for line in folder.left_out:
        print(line, file=sys.stderr)


def _one_by_one(
    folder: StudyFolder,
    missing: Sequence[str],
    work: Callable[[str], Part],
    place: torch.device,
    show: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """Do parts in their order; yield what became of each. Processes that share work do each part together."""
    writes = processes().is_first
    for name in missing:
        show(name)
        if lacking := [need for need in folder.study.needs(name) if need in folder.missing]:
            yield name, MissingFileError(folder.missing[lacking[0]])
            continue
        try:
            yield name, folder.keep(name, work, place) if writes else work(name)
        except (UnwritableError, OutputInUseError):
            raise
        except SightlineError as error:
            yield name, error


def _steps(study: Study) -> set[str]:
    """Return the parts that serve other parts and are no results themselves."""
    return {need for part in study.parts() for need in study.needs(part)}


def _with_needs(study: Study, only: Sequence[str]) -> set[str]:
    """Return some parts of a study, with all that they need."""
    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        part = waiting.pop()
        waiting += [need for need in study.needs(part) if need not in wanted]
        wanted.add(part)
    return wanted
