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
from sightline.errors import MissingFileError, SightlineError
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
) -> Path:
    """Make a table or figure of a paper again.

    Every finished part of the work is kept in the output folder. A later call goes on from there.

    Args:
        paper: short name, such as `lots`.
        item: the table or figure, such as `table-5.3`; `sightline list recipes` lists them.
        overrides: `key.sub=value` each, such as `data.path=images.csv`.
        scale: share of the protocol's images or repetitions, in (0, 1]; the report says so.
        output: the folder; None = runs/reproduce/PAPER/ITEM, with the scale added where it is not 1.
        device: None = a GPU where there is one.

    Returns:
        The folder: table.csv, report.md, figures, and the parts.

    Raises:
        SightlineError: no such item or key, data or weights are missing, or the folder holds another study.
    """
    if not 0 < scale <= 1:
        raise SightlineError(f"scale is {scale}; expected a share in (0, 1]")
    study = read_study(paper, item, overrides).scaled(scale)
    default = Path("runs", "reproduce", paper, item if scale == 1 else f"{item}-scale{scale:g}")
    return run_study(study, default if output is None else Path(output), scale=scale, device=device)


def run_study(study: Study, output: Path, *, scale: float = 1.0, device: str | torch.device | None = None) -> Path:
    """Do what is not done yet of a study's parts, and write its results.

    Args:
        study: any study.
        output: the folder, which may hold parts of the same study already.
        scale: the share of the protocol that the study was scaled to, for the report.
        device: None = a GPU where there is one.

    Returns:
        The folder.

    Raises:
        OutputInUseError: another process works on the folder.
        MissingFileError: data or weights of all parts are missing; where only some parts lack theirs, the report says so.
        SightlineError: the folder holds another study.
    """
    with holding_folder(output):
        return _run(study, StudyFolder(output, study, scale), pick_device(device))


def _run(study: Study, folder: "StudyFolder", place: torch.device) -> Path:
    folder.check()
    done = folder.finished()
    missing = [name for name in study.parts() if name not in done]
    if missing:
        work = study.prepare(
            place, folder.path
        )  # before the folder is made, so that what is missing leaves nothing behind
        folder.begin()
        with ProgressBar(True, study.called, len(study.parts()), len(done)) as bar:
            for name in missing:
                bar.update(description=f"{study.called}: {name}")
                try:
                    done[name] = folder.keep(name, work, place)
                except MissingFileError as error:
                    folder.missing[name] = str(error)
                bar.advance()
                folder.report(done)
    if not done:
        raise MissingFileError(f"{study.called}: {'; '.join(dict.fromkeys(folder.missing.values()))}")
    if not folder.missing:
        for name, figure in study.figures(done).items():
            write_atomically(folder.path / name, png(figure))
    folder.report(done)
    for line in folder.left_out:
        print(line, file=sys.stderr)
    return folder.path


class StudyFolder:
    """Where a study's parts and results are written.

    Args:
        path: the folder.
        study: what it is for.
        scale: the share of the protocol, for the report.

    Attributes:
        missing: the parts whose data or weights are missing, with what was said of it.
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
        """Refuse a folder that holds anything but this study's results, or those of less of it."""
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
        """What was not done for want of data, a line for each thing that is missing."""
        parts = list(self.missing.values())
        return [f"Left out, {parts.count(reason)} parts: {reason}" for reason in dict.fromkeys(parts)]

    def begin(self) -> None:
        """Make the folder, and say what study it is of."""
        make_folder(self.path / "parts")
        write_atomically(self.path / "study.yaml", self.study.to_yaml().encode())

    def finished(self) -> dict[str, Part]:
        """The parts that were kept and have all that is asked of them, in the order of work."""
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


def _where(device: torch.device) -> str:
    """The hardware, with what decides its speed."""
    cpu = f"{_processor()}, {torch.get_num_threads()} threads"
    if device.type == "cpu":
        return f"{cpu}, torch {torch.__version__}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name} ({cpu}), torch {torch.__version__}"


def _processor() -> str:
    """The processor's name as Linux tells it, else as Python does."""
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
