"""Programs of torch.export and ONNX, each checked against the model that it was made of."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.models.two_branch import NAME as TWO_BRANCH
from sightline.models.two_branch import SelfExplaining, TwoBranch
from sightline.network.logits import returned_logits

# The formats of an export and the file of each.
Format = Literal["state-dict", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES: dict[Format, str] = {"state-dict": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx"}
PROTOBUF_LIMIT = 2**31  # bytes of an ONNX file; the weights of larger models are written to a second file
BATCH_SIZES = (1, 3)  # batch sizes that a written program is checked with

Outputs = dict[str, Tensor]
Answer = Callable[[Tensor], Outputs]


class Program(nn.Module):
    """A classifier as a function from images to tensors, also if it returns the logits in an object.

    Args:
        model: a classifier.

    Attributes:
        outputs: what its tensors are called.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        explains = isinstance(getattr(model, TWO_BRANCH, None), TwoBranch)
        self.model = SelfExplaining(model) if explains else model
        self.outputs = ("logits", "maps") if explains else ("logits",)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits, or the logits and the maps of a model that has its own explainer."""
        output = self.model(images)
        return returned_logits(output) if len(self.outputs) == 1 else tuple(output)

    def named(self, images: Tensor) -> Outputs:
        """Return the tensors by name."""
        return _by_name(self.outputs, self(images))


def _by_name(names: Sequence[str], output: Any) -> Outputs:
    return dict(zip(names, [output] if isinstance(output, Tensor) else output, strict=True))


def write_programs(program: Program, images: Tensor, formats: Sequence[str], folder: Path) -> None:
    """Write the program in each of the formats that is one, and check what was written.

    Args:
        program: the model's.
        images: (B, C, H, W) that the model and the written programs are compared on.
        formats: those wanted; "state-dict" is not a program and is ignored.
        folder: the folder to write to.

    Raises:
        SightlineError: a format cannot express the model, or a written program gives other tensors than the model.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    with _naming("torch-export"):
        exported = torch.export.export(program, (images[:2],), dynamic_shapes=(batch,), strict=False)
    if "torch-export" in formats:
        file = folder / FILES["torch-export"]
        with _naming("torch-export"):
            with file.open("wb") as opened:
                torch.export.save(exported, opened)
            loaded = torch.export.load(file).module()
            _compare(lambda images: _by_name(program.outputs, loaded(images)), program, images)
    if "onnx" in formats:
        file = folder / FILES["onnx"]
        with _naming("onnx"):
            _write_onnx(exported, file, program.outputs)
            _compare(_ask_onnx(file, program.outputs), program, images)


@contextmanager
def _naming(kind: Format) -> Iterator[None]:
    """Turn any error of an exporter, which runs the model's code, into one that names the format."""
    try:
        yield
    except (SightlineError, OSError):  # such as a full disk
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise SightlineError(f"format {kind!r} cannot express this model ({reason}); leave the format out") from error


def _write_onnx(program: torch.export.ExportedProgram, file: Path, outputs: Sequence[str]) -> None:
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    options: dict[str, Any] = {"input_names": ["images"], "output_names": list(outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own insides
        converted = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    assert converted is not None
    converted.save(file, external_data=weights >= PROTOBUF_LIMIT)


def _ask_onnx(file: Path, outputs: Sequence[str]) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def ask(images: Tensor) -> Outputs:
        found = session.run(list(outputs), {"images": images.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(outputs, found)}

    return ask


def _compare(answer: Answer, program: Program, images: Tensor) -> None:
    """Reject a written program that gives other tensors than its model."""
    for size in BATCH_SIZES:
        with torch.no_grad():
            expected, found = program.named(images[:size]), answer(images[:size])
        for name, tensor in expected.items():
            error = float((found[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-6))
            if not error < 1e-3:
                raise SightlineError(
                    f"the exported program's {name} for {size} images are off by {error:.1e} of the largest; "
                    "export another format, or report the model"
                )
