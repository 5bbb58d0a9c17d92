"""Optional packages: one place that knows which extra installs them, and one error when they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from sightline.errors import MissingDependencyError

_TRAIN = ("lightning_fabric", "tensorboard", "filelock")
_CLI = ("typer", "rich", "filelock")
_REPORT = ("jinja2", "matplotlib", "pyarrow", "filelock")

# Each extra of pyproject.toml with the modules that it makes importable.
EXTRAS: dict[str, tuple[str, ...]] = {
    "timm": ("timm",),
    "captum": ("captum", "sklearn"),
    "hf": ("transformers",),
    "openclip": ("open_clip",),
    "cluster": ("sklearn",),
    "masks": ("cv2",),
    "coco": ("pycocotools",),
    "datasets": ("datasets",),
    "check": ("imagehash",),
    "maps": ("zarr", "lightning_fabric", "filelock"),
    "train": _TRAIN,
    "cli": _CLI,
    "report": _REPORT,
    "rating": (*_CLI, *_REPORT, "starlette", "uvicorn"),
    "fix": (*_CLI, *_REPORT, *_TRAIN, "starlette", "uvicorn", "cv2"),
    "sweep": (*_REPORT, *_TRAIN, "optuna"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "wandb": (*_TRAIN, "wandb"),
    "mlflow": (*_TRAIN, "mlflow", "sqlalchemy", "alembic"),
}
EXTRAS["all"] = tuple(dict.fromkeys(module for modules in EXTRAS.values() for module in modules))


@contextmanager
def requires_extra(extra: str, purpose: str) -> Iterator[None]:
    """Import optional packages inside this context: `with requires_extra("maps", "a map store"): import zarr`.

    Args:
        extra: Name of the extra that installs the packages.
        purpose: What needs them; the subject of the error's sentence.

    Raises:
        MissingDependencyError: A package of the extra is not installed. The message has the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS[extra]:
            raise
        raise missing_dependency(module, extra, purpose) from error


def missing_dependency(module: str, extra: str, purpose: str) -> MissingDependencyError:
    """Return the error for a missing package, with the command that installs it."""
    return MissingDependencyError(
        f"{purpose} needs {module}, which is not installed: pip install 'sightline-xai[{extra}]'"
    )
