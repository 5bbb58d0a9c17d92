"""A trained model as files that others load without sightline: a plain state dict, a torch.export program, ONNX."""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sightline._core.optional import EXTRAS, missing_dependency
from sightline.errors import SightlineError, unknown_name
from sightline.models import load_model
from sightline.models.loading import check_name, library_options
from sightline.models.two_branch import NAME as TWO_BRANCH
from sightline.models.two_branch import SelfExplaining, TwoBranch
from sightline.network.input_spec import InputSpec
from sightline.network.tap import logits_of, unwrap
from sightline.training.load_run import load_run
from sightline.training.run import Run

Format = Literal["state-dict", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES: dict[Format, str] = {"state-dict": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx"}
PROTOBUF_LIMIT = 2**31  # bytes of an ONNX file; the weights of larger models go into a file beside it
BATCHES = (1, 3)  # what a written program is asked, to see that it takes batches of any size

Outputs = dict[str, Tensor]
Answer = Callable[[Tensor], Outputs]


def export_run(run: str | Path | Run, output: str | Path, formats: Sequence[str] = FORMATS) -> Path:
    """Export the model that a run trained: of its best epoch where the recipe selects one, else of the last.

    Args:
        run: a run or its folder.
        output: the folder to write; see `export_model`.
        formats: which of "state-dict", "torch-export" and "onnx".

    Returns:
        The folder.

    Raises:
        SightlineError: there is no such run or checkpoint; see also `export_model`.
    """
    run = Run.open(run)
    run.weights()
    _check(output, formats)
    loaded = load_run(run, device="cpu")
    return export_model(
        loaded.model,
        output,
        formats,
        input_spec=loaded.input_spec,
        classes=loaded.classes,
        name=loaded.recipe.model.name,
    )


def export_model(
    model: nn.Module,
    output: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    input_spec: InputSpec,
    classes: Sequence[str],
    name: str | None = None,
) -> Path:
    """Write a classifier, in evaluation mode and on the CPU, and `model.json`, which says how to load and feed it.

    Every program is read back and asked for the logits of batches of one and of several images before the folder gets its
    name, so that a folder of that name is whole and right.

    Args:
        model: stays as it is.
        output: the folder to write; it must not exist, or be empty.
        formats: "state-dict" is `model.safetensors`, under the model's own keys; "torch-export" is `model.pt2`, and "onnx" is
            `model.onnx`, both for normalised images (B, C, H, W) of the spec's size, with any B, to logits (B, K); of a model
            that carries its own explainer (IMPACTX, WAE) to logits and maps (B, H, W).
        input_spec: the normalisation and size; it is written down, and is not part of the programs.
        classes: a name for each logit.
        name: what `load_model` calls the model; None = a model from elsewhere, which its owner knows how to make.

    Returns:
        The folder.

    Raises:
        SightlineError: the folder holds something, a format is unknown, needs a package that is not installed or cannot
            express the model, or `classes` and the model's logits differ in number.
    """
    folder = _check(output, formats)
    model = copy.deepcopy(unwrap(model)).cpu().eval()
    like = next(model.parameters())
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCHES), len(input_spec.mean), *input_spec.size, generator=draw).to(like.dtype)
    program = _Program(model)
    with torch.no_grad():
        count = program.named(images)["logits"].shape[1]
    if len(classes) != count:
        raise SightlineError(f"classes names {len(classes)} classes; the model has {count} logits")

    unborn = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(unborn, ignore_errors=True)
        unborn.mkdir(parents=True)
        if "state-dict" in formats:
            state = {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}
            save_file(state, unborn / FILES["state-dict"], {"format": "pt"})
        if "torch-export" in formats or "onnx" in formats:
            _write_programs(program, images, formats, unborn)
        facts = _facts(model, formats, input_spec, list(classes), name, program.outputs)
        (unborn / "model.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        for file in unborn.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        if folder.exists():
            folder.rmdir()  # it is empty, and some systems rename nothing onto it
        unborn.rename(folder)
    except OSError as error:
        raise SightlineError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    return folder


class _Program(nn.Module):
    """A classifier as a function from images to tensors, whatever object it returns the logits in.

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
        output = self.model(images)
        return logits_of(output) if len(self.outputs) == 1 else tuple(output)

    def named(self, images: Tensor) -> Outputs:
        """The tensors by name."""
        return _by_name(self.outputs, self(images))


def _by_name(names: Sequence[str], output: Any) -> Outputs:
    return dict(zip(names, [output] if isinstance(output, Tensor) else output, strict=True))


def _check(output: str | Path, formats: Sequence[str]) -> Path:
    """The folder to write, or what keeps the export from its beginning."""
    if not formats:
        raise SightlineError(f"formats is empty; expected some of {', '.join(FORMATS)}")
    for each in formats:
        if each not in FORMATS:
            raise unknown_name("format", each, FORMATS)
    if "onnx" in formats:
        for package in EXTRAS["export"]:
            if find_spec(package) is None:
                raise missing_dependency(package, "export", "format 'onnx'")
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SightlineError(f"output {folder} holds something already; name another folder")
    return folder


def _write_programs(program: _Program, images: Tensor, formats: Sequence[str], folder: Path) -> None:
    batch = {0: torch.export.Dim("batch", min=1)}
    with _naming("torch-export"):
        exported = torch.export.export(program, (images[:2],), dynamic_shapes=(batch,), strict=False)
    if "torch-export" in formats:
        file = folder / FILES["torch-export"]
        with _naming("torch-export"):
            torch.export.save(exported, file)
            loaded = torch.export.load(file).module()
            _compare(lambda images: _by_name(program.outputs, loaded(images)), program, images)
    if "onnx" in formats:
        file = folder / FILES["onnx"]
        with _naming("onnx"):
            _write_onnx(exported, file, program.outputs)
            _compare(_ask_onnx(file, program.outputs), program, images)


@contextmanager
def _naming(kind: Format) -> Iterator[None]:
    """Whatever goes wrong in an exporter, which runs the model's own code, is an error that names the format."""
    try:
        yield
    except SightlineError:
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


def _compare(answer: Answer, program: _Program, images: Tensor) -> None:
    """Refuse a written program that gives other tensors than its model."""
    for size in BATCHES:
        with torch.no_grad():
            expected, found = program.named(images[:size]), answer(images[:size])
        for name, tensor in expected.items():
            error = float((found[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-6))
            if not error < 1e-3:
                raise SightlineError(
                    f"the exported program's {name} for {size} images are off by {error:.1e} of the largest"
                )


def _facts(
    model: nn.Module,
    formats: Sequence[str],
    spec: InputSpec,
    classes: list[str],
    name: str | None,
    outputs: Sequence[str],
) -> dict[str, Any]:
    """What `model.json` says."""
    made = f"model = ...  # a {type(model).__module__}.{type(model).__qualname__}"
    lines, library, needs = ["import safetensors.torch", made], None, None
    if name is not None:
        library, plain = check_name(name)
        options = library_options(name, len(classes), spec.size[0])
        own = load_model(name, None, len(classes), spec.size[0])[0].state_dict().keys()
        added = sorted(model.state_dict().keys() - own)
        if added or library == "sightline":
            needs = "sightline" + (f", for {', '.join(added)}, which {library}'s model does not have" if added else "")
            weights = FILES["state-dict"]
            call = f"sightline.load_model({name!r}, {weights!r}, {len(classes)}, {spec.size[0]})"
            lines = ["import sightline", f"model, spec = {call}", "model.eval()"]
        else:
            given = "".join(f", {key}={value!r}" for key, value in options.items())
            maker = "timm.create_model" if library == "timm" else "torchvision.models.get_model"
            lines = [f"import safetensors.torch, {library}", f"model = {maker}({plain!r}{given}).eval()"]
    if needs is None:
        lines.append(f"model.load_state_dict(safetensors.torch.load_file({FILES['state-dict']!r}))")
    first = "[0]" if len(outputs) == 1 else ""
    load: dict[Format, list[str]] = {
        "state-dict": lines,
        "torch-export": ["import torch", f"model = torch.export.load({FILES['torch-export']!r}).module()"],
        "onnx": [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({FILES['onnx']!r})",
            f"model = lambda images: session.run({list(outputs)!r}, {{'images': images}}){first}  # float32 NumPy arrays",
        ],
    }
    return {
        "format": "sightline export 1",
        "name": name,
        "library": library,
        "classes": classes,
        "mean": spec.mean,
        "std": spec.std,
        "size": spec.size,
        "input": "(pixels / 255 - mean) / std, float (B, C, H, W); of an image the shorter side is resized to size, and the "
        "centre is kept",
        "outputs": list(outputs),
        "files": {each: FILES[each] for each in FORMATS if each in formats},
        "load": {each: load[each] for each in FORMATS if each in formats},
        "state_dict_needs": needs,
    }
