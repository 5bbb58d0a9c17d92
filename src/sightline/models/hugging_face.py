"""Models in a folder as Hugging Face saves them, of transformers or of timm: `hf:FOLDER`. Nothing is downloaded or executed."""

from pathlib import Path
from typing import Any

from sightline._core.optional import requires_extra
from sightline._core.reading import read_json
from sightline.data.files import locate
from sightline.errors import MissingFileError, SightlineError
from sightline.models.checkpoint import read_checkpoint
from sightline.models.made import Made, spec_of
from sightline.models.weights import load_checkpoint
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec

AGAIN = "save the model again, or fetch the folder again"
OPEN_CLIP = "open_clip_config.json"  # a folder of open_clip has it


def make_folder_model(name: str, pretrained: bool, classes: int | None, size: int | None) -> Made:
    """Make the model of a folder.

    Args:
        name: the folder, with `config.json`; seen from here or else from the folder that SIGHTLINE_DATA names.
        pretrained: with the weights in the folder.
        classes: number of logits; None = as many as the folder says.
        size: side of the input in pixels; None likewise.

    Raises:
        SightlineError: there is no such folder, it holds no image classifier, or its weights do not fit.
    """
    folder = find_folder(name)
    if classifies_by_texts(folder):
        raise SightlineError(
            f"model: {folder} holds a model of images and texts, which has no fixed classes; name them in --classes FILE, "
            "one per line (classes= of sightline.open_model), or use sightline.models.zero_shot_classifier"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise SightlineError(f"model: {folder} has no config.json; expected a folder of save_pretrained, or of timm")
    config = read_json(file, AGAIN)
    if "model_type" not in config and "architecture" in config:
        return _of_timm(folder, config, pretrained, classes, size)
    return _of_transformers(folder, pretrained, classes, size)


def find_folder(name: str) -> Path:
    """Return the folder of a model.

    Raises:
        MissingFileError: there is none; the message says how to fetch one of the hub.
    """
    try:
        return locate(name, "model")
    except MissingFileError as error:
        raise MissingFileError(
            f"{error}; hf: expects a folder, and nothing is downloaded. `hf download {name} --local-dir FOLDER` fetches a "
            "model of the hub, where it has this name"
        ) from error


def classifies_by_texts(folder: Path) -> bool:
    """Return whether a folder holds a model with a side for images and one for texts, and no head of a classifier."""
    if (folder / OPEN_CLIP).is_file():
        return True
    file = folder / "config.json"
    config = read_json(file, AGAIN) if file.is_file() else {}
    headed = any("For" in name for name in config.get("architectures") or ())
    return not headed and {"text_config", "vision_config"} <= config.keys()


def _of_timm(folder: Path, config: dict[str, Any], pretrained: bool, classes: int | None, size: int | None) -> Made:
    with requires_extra("timm", f"the timm model in {folder}"):
        import timm
    known = config.get("pretrained_cfg", {})
    count = classes or config.get("num_classes") or known.get("num_classes", 1000)
    options = config.get("model_args", {})
    model = timm.create_model(config["architecture"], pretrained=False, num_classes=count, **options)
    side = size or known.get("input_size", (3, 224, 224))[-1]
    spec, notes = spec_of(model, side)
    if "mean" in known and "std" in known:
        spec, notes = InputSpec(tuple(known["mean"]), tuple(known["std"]), (side, side)), []
    if pretrained:
        notes = load_checkpoint(model, read_checkpoint(folder), head_name(model)) + notes
    names = config.get("label_names")
    return Made(model, spec, names if names and len(names) == count else None, notes)


def _of_transformers(folder: Path, pretrained: bool, classes: int | None, size: int | None) -> Made:
    with requires_extra("hf", f"the model in {folder}"):
        from transformers import AutoConfig, AutoModelForImageClassification
    changes: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **changes)
        if not pretrained:
            model = AutoModelForImageClassification.from_config(config)
            info: dict[str, Any] = {}
        else:
            model, info = AutoModelForImageClassification.from_pretrained(
                folder, config=config, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except Exception as error:  # transformers rejects a folder in many ways
        reason = " ".join(str(error).split())[:300]
        raise SightlineError(f"model: {folder} cannot be opened by transformers: {reason}; {AGAIN}") from error
    notes = _check_loading(folder, model, info)
    spec, more = input_of(folder, model, size)
    names = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    named = classes is None and not all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return Made(model, spec, names if named else None, notes + more)


def _check_loading(folder: Path, model: Any, info: dict[str, Any]) -> list[str]:
    """Reject weights that were not in the folder, except for a head of another number of classes."""
    head = head_name(model)
    changed = [each[0] if isinstance(each, tuple | list) else each for each in info.get("mismatched_keys", ())]
    random = [str(key) for key in {*info.get("missing_keys", ()), *changed}]
    wrong = sorted(key for key in random if key.rpartition(".")[0] not in head or key not in changed)
    if wrong:
        raise SightlineError(
            f"model: the weights in {folder} are not those of an image classifier of this kind: {len(wrong)} are missing or "
            f"of another shape, such as {wrong[0]}; {AGAIN}"
        )
    return [f"{' and '.join(sorted(random))} left random, for another number of classes"] if random else []


def input_of(folder: Path, model: Any, size: int | None) -> tuple[InputSpec, list[str]]:
    """Return the input by the folder's preprocessor_config.json: (255 f x - mean) / std of x in [0, 1], with the factor f."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        spec, notes = spec_of(model, size)
        return spec, [f"{folder} has no preprocessor_config.json", *notes]
    read = read_json(file, AGAIN)
    if read.get("do_flip_channel_order"):
        raise SightlineError(
            f"model: {folder} takes images as BGR; name a function that flips the channels before the model, "
            "`--model package.module:function`"
        )
    wanted = read.get("crop_size") if read.get("do_center_crop") else None
    wanted = wanted or read.get("size") or {}
    if isinstance(wanted, int):
        wanted = {"shortest_edge": wanted}
    config = model.config
    side = wanted.get("shortest_edge") or wanted.get("height") or getattr(config, "image_size", None) or 224
    height, width = (size, size) if size else (wanted.get("height", side), wanted.get("width", side))
    normalized = read.get("do_normalize", True)
    mean = read.get("image_mean", (0.5,) * 3) if normalized else (0.0,) * 3
    std = read.get("image_std", (0.5,) * 3) if normalized else (1.0,) * 3
    factor = 255 * (read.get("rescale_factor", 1 / 255) if read.get("do_rescale", True) else 1)
    offset = 1 if read.get("rescale_offset") else 0
    spec = InputSpec(
        tuple((float(m) + offset) / factor for m in mean), tuple(float(s) / factor for s in std), (height, width)
    )
    return spec, []
