"""The folder of a study: its parts, each written when it is finished, and its results."""

import json
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save

from sightline._core.csv_files import csv_text
from sightline._core.files import is_new, make_folder, write_atomically
from sightline._core.reading import read_json, read_tensors, reading
from sightline.errors import SightlineError
from sightline.runs.run import surroundings
from sightline.studies.study import Done, Part, Study, study_from_yaml

ADVICE = "remove the file of this part and give the command again, which does the part again"


class StudyFolder:
    """Where a study's parts and results are written.

    Args:
        path: the folder.
        study: what it is for.
        scale: the share of the protocol, for the report.

    Attributes:
        missing: Parts that failed, such as without data or weights, and those that need them, with the reason.
    """

    def __init__(self, path: Path, study: Study, scale: float) -> None:
        self.path = path
        self.study = study
        self.scale = scale
        self.missing: dict[str, str] = {}
        self.files = {n: path / "parts" / (re.sub(r"[^\w.+=-]+", "-", n) + ".json") for n in study.parts()}
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
        """Return the kept parts that have all that the study asks for, in the order of work."""
        kept = {name: self.read(name) for name, file in self.files.items() if file.is_file()}
        return {name: part for name, part in kept.items() if self.study.is_complete(name, part)}

    def read(self, name: str) -> Part:
        """Return a part that was kept."""
        file = self.files[name]
        tensors = file.with_suffix(".safetensors")
        written = read_json(file, ADVICE)
        with reading(file, ADVICE):
            values = written["values"]
        return Part(values, read_tensors(tensors, ADVICE)[0] if tensors.is_file() else {})

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

    def report(self, done: Done) -> None:
        """Write study.yaml, table.csv and report.md for the finished parts."""
        self.begin()
        rows = self.study.table(done)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        short = ({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
        write_atomically(self.path / "table.csv", csv_text(columns, short).encode())
        for name, content in self.study.files(done).items():
            write_atomically(self.path / name, content)
        write_atomically(self.path / "report.md", self._page(done).encode())

    def _page(self, done: Done) -> str:
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
            "every key of the study: [study.yaml](study.yaml); the values as data: [table.csv](table.csv)",
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
