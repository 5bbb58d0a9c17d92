"""`reproduce`: a study's parts worked off one by one and kept, and its results beside the paper's."""

import json
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from sightline._core.csv_files import csv_text
from sightline._core.devices import pick_device
from sightline._core.files import is_new, make_folder, write_atomically
from sightline._core.output_lock import holding_folder
from sightline._core.progress import ProgressBar
from sightline._core.reading import read_json, read_tensors, reading
from sightline.errors import MissingFileError, OutputInUseError, SightlineError, UnwritableError
from sightline.reporting.plots import png
from sightline.studies.study import Part, Study, read_study, study_from_yaml
from sightline.training.run import surroundings

ADVICE = "remove the file of this part and give the command again, which does the part anew"


def reproduce(
    paper: str,
    item: str,
    overrides: Sequence[str] = (),
    *,
    scale: float = 1.0,
    output: str | Path | None = None,
    device: str | torch.device | None = None,
    search: bool = False,
) -> Path:
    """Make a table or figure of a paper again.

    Every finished part of the work is kept in the output folder. A later call continues from there.

    Args:
        paper: short name, such as `lots`.
        item: the table or figure, such as `table-5.3`; `sightline list recipes` lists them.
        overrides: `key.sub=value` each, such as `data.path=images.csv`.
        scale: share of the protocol's images or repetitions, in (0, 1]; the report says so.
        output: the folder; None = runs/reproduce/PAPER/ITEM, with the scale added where it is not 1.
        device: None = a GPU where there is one.
        search: let validation choose what the paper searched, and train with that; for items whose `steps` have a search.

    Returns:
        The folder: table.csv, report.md, figures, and the parts.

    Raises:
        SightlineError: no such item or key, data or weights are missing, or the folder holds another study.
    """
    if not 0 < scale <= 1:
        raise SightlineError(f"scale is {scale}; expected a share in (0, 1]")
    changes = [*overrides, *(["search=true"] if search else [])]
    study = read_study(paper, item, changes).scaled(scale)
    called = f"{item}{'-search' if search else ''}{'' if scale == 1 else f'-scale{scale:g}'}"
    place = default_folder(paper, called) if output is None else Path(output)
    return run_study(study, place, scale=scale, device=device)


def default_folder(paper: str, item: str) -> Path:
    """Return where a paper's table or figure is made unless something else is said."""
    return Path("runs", "reproduce", paper, item)


def run_study(
    study: Study,
    output: Path,
    *,
    scale: float = 1.0,
    device: str | torch.device | None = None,
    only: Sequence[str] | None = None,
) -> Path:
    """Do what is not done yet of a study's parts, and write its results.

    A part that fails costs what needs it and not the study: the report names what was left out, with the reason, and the next
    call tries it again. Missing data or weights are no error as long as some part is done; another failure is raised at the
    end, when everything else is done.

    Args:
        study: any study.
        output: the folder, which may hold parts of the same study already.
        scale: the share of the protocol that the study was scaled to, for the report.
        device: None = a GPU where there is one.
        only: do these parts, and those that they need; None = all.

    Returns:
        The folder.

    Raises:
        OutputInUseError: another process works on the folder.
        UnwritableError: the disk is full, or a file cannot be written.
        MissingFileError: data or weights of all parts are missing.
        SightlineError: the folder holds another study; or the first failure of a part.
    """
    with holding_folder(output):
        return _run(study, StudyFolder(output, study, scale), pick_device(device), only)


def _run(study: Study, folder: "StudyFolder", place: torch.device, only: Sequence[str] | None) -> Path:
    folder.check()
    done = folder.finished()
    wanted = set(study.parts()) if only is None else _with_needs(study, only)
    missing = [name for name in study.parts() if name in wanted and name not in done]
    failed: SightlineError | None = None
    if missing:
        work = study.prepare(
            place, folder.path
        )  # before the folder is made, so that what is missing leaves nothing behind
        folder.begin()
        with ProgressBar(True, study.called, len(study.parts()), len(done)) as bar:
            for name in missing:
                bar.update(description=f"{study.called}: {name}")
                lacking = [need for need in study.needs(name) if need in folder.missing]
                try:
                    if lacking:
                        folder.missing[name] = folder.missing[lacking[0]]
                    else:
                        done[name] = folder.keep(name, work, place)
                except MissingFileError as error:
                    folder.missing[name] = str(error)
                except (UnwritableError, OutputInUseError):
                    raise
                except SightlineError as error:
                    failed = failed or error
                    folder.missing[name] = str(error)
                bar.advance()
                folder.report(done)
    if not done and failed is None:
        raise MissingFileError(f"{study.called}: {'; '.join(dict.fromkeys(folder.missing.values()))}")
    if set(study.parts()) <= set(done):
        for name, figure in study.figures(done).items():
            write_atomically(folder.path / name, png(figure))
    folder.report(done)
    for line in folder.left_out:
        print(line, file=sys.stderr)
    if failed is not None:
        raise failed
    return folder.path


class StudyFolder:
    """Where a study's parts and results are written.

    Args:
        path: the folder.
        study: what it is for.
        scale: the share of the protocol, for the report.

    Attributes:
        missing: the parts that failed, such as for want of data or weights, and those that need them, with the reason.
    """

    def __init__(self, path: Path, study: Study, scale: float) -> None:
        self.path = path
        self.study = study
        self.scale = scale
        self.missing: dict[str, str] = {}
        self.files = {name: path / "parts" / f"{_file_name(name)}.json" for name in study.parts()}
        if len(set(self.files.values())) < len(self.files):
            raise SightlineError(f"{study.called}: two of its labels differ in punctuation alone")

    def check(self) -> None:
        """Reject a folder that holds anything but this study's results, or those of less of it."""
        if is_new(self.path):
            return
        if not (self.path / "study.yaml").is_file():
            raise SightlineError(f"output {self.path} is not the folder of a study; choose another by --output")
        if differs := self.study.incompatibility(study_from_yaml(self.path / "study.yaml")):
            raise SightlineError(
                f"output {self.path} holds results of a study that differs in {differs}; choose another by --output"
            )

    @property
    def left_out(self) -> list[str]:
        """What was not done, a line for each reason."""
        parts = list(self.missing.values())
        return [f"Left out, {parts.count(reason)} parts: {reason}" for reason in dict.fromkeys(parts)]

    def begin(self) -> None:
        """Make the folder, and say what study it is of."""
        make_folder(self.path / "parts")
        write_atomically(self.path / "study.yaml", self.study.to_yaml().encode())

    def finished(self) -> dict[str, Part]:
        """Return the stored parts that have everything they need, in the order of work."""
        kept = {name: _read(file) for name, file in self.files.items() if file.is_file()}
        return {name: part for name, part in kept.items() if self.study.is_complete(name, part)}

    def keep(self, name: str, work: Callable[[str], Part], device: torch.device) -> Part:
        """Do a part, and write it: its tensors first, since the JSON file says that it is done."""
        start = time.perf_counter()
        part = work(name)
        facts = {"part": name, "seconds": round(time.perf_counter() - start, 3), "where": _where(device)}
        file = self.files[name]
        if part.tensors:
            tensors = {key: tensor.contiguous() for key, tensor in part.tensors.items()}
            write_atomically(file.with_suffix(".safetensors"), save(tensors))
        write_atomically(file, json.dumps({**facts, "values": part.values}, indent=1).encode())
        return part

    def report(self, done: dict[str, Part]) -> None:
        """Write study.yaml, table.csv and report.md, as far as parts are done."""
        self.begin()
        rows = self.study.table(done)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        short = ({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
        write_atomically(self.path / "table.csv", csv_text(columns, short).encode())
        for name, content in self.study.files(done).items():
            write_atomically(self.path / name, content)
        write_atomically(self.path / "report.md", self._page(done).encode())

    def _page(self, done: dict[str, Part]) -> str:
        study, total = self.study, len(self.files)
        notes = list(study.notes)
        if self.scale != 1:
            notes.insert(
                0, f"Made at --scale {self.scale:g}: the same protocol on less data than the study's full size."
            )
        if len(done) < total:
            notes[:0] = [f"Not finished: {len(done)} of {total} parts are done.", *self.left_out]
        kept = [read_json(self.files[name], ADVICE) for name in done]
        here = surroundings(1, torch.device("cpu"))
        facts = [
            f"command: `{here['command']}`",
            f"seed {study.seed}; {len(done)} of {total} parts, {sum(each['seconds'] for each in kept):.0f} s of work",
            *(f"on {where}" for where in dict.fromkeys(each["where"] for each in kept)),
            "versions: " + ", ".join(f"{name} {version}" for name, version in here["versions"].items()),
            "every key of the study: [study.yaml](study.yaml); the figures as data: [table.csv](table.csv)",
        ]
        return "\n".join(
            [
                f"# {study.title}",
                "",
                *([f"After {study.source}.", ""] if study.source else []),
                *(f"- {note}" for note in notes),
                "",
                study.summary(done),
                "",
                "## How it was made",
                "",
                *(f"- {fact}" for fact in facts),
                "",
            ]
        )


def _with_needs(study: Study, only: Sequence[str]) -> set[str]:
    """Return some parts of a study, with all that they need."""
    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        part = waiting.pop()
        waiting += [need for need in study.needs(part) if need not in wanted]
        wanted.add(part)
    return wanted


def _where(device: torch.device) -> str:
    """Describe the hardware, with what decides its speed."""
    cpu = f"{_processor()}, {torch.get_num_threads()} threads"
    if device.type == "cpu":
        return f"{cpu}, torch {torch.__version__}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name} ({cpu}), torch {torch.__version__}"


def _processor() -> str:
    """Return the processor's name from Linux, else from Python."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _file_name(part: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", part)


def _read(file: Path) -> Part:
    tensors = file.with_suffix(".safetensors")
    written = read_json(file, ADVICE)
    with reading(file, ADVICE):
        values = written["values"]
    return Part(values, read_tensors(tensors, ADVICE)[0] if tensors.is_file() else {})
