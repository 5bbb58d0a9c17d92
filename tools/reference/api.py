"""The pages of the Python API, one for each package: the names of its `__all__`, and some that users import from deeper."""

import inspect
from collections.abc import Callable
from importlib import import_module
from itertools import chain

import sightline

PACKAGES = {  # package -> deeper names that users call
    "explainers": ["maps.compute_maps"],
    "attributions": ["lots.LOTS", "owen.owen_values"],
    "objectives": [],
    "guides": [],
    "metrics": [],
    "data": ["map_store.MapStore"],
    "verification": [],
    "datasets": [
        "derived.recompose.Recompose",
        "derived.variants.MaskedImages",
        "derived.variants.BackgroundVariant",
        "derived.mask_quality.DegradedMasks",
        "derived.subset.Subset",
    ],
    "given": [],
    "models": ["two_branch.SelfExplaining"],
    "network": [
        "tap.Tap",
        "tap.Tapped",
        "layout.Layer",
        "input_spec.InputSpec",
        "targets.Contrast",
        "targets.AgainstSimilar",
        "targets.joint",
        "targets.semantic",
        "targets.detection",
        "features.class_features",
    ],
    "attacks": [],
    "localization": ["lost.lost", "grabcut.grabcut", "writing.write_boxes", "writing.write_masks"],
    "heads": [],
    "runs": [],
    "training": ["loggers.WandbLogger", "loggers.MLflowLogger"],
    "exporting": [],
    "evaluation": [],
    "diagnosis": [],
    "auditing": [],
    "reporting": ["comparison.compare", "map_logger.MapLogger", "plots.filters.show_filters"],
    "fixing": [],
    "acquisition": [],
    "studies": [],
    "sweeping": [],
    "errors": [
        "SightlineError",
        "MissingFileError",
        "MissingDependencyError",
        "NonFiniteLossError",
        "NotDefinedError",
        "RunFailedError",
        "UnwritableError",
        "OutputInUseError",
    ],
}

HEAD = """# {title}

{purpose} This page is generated from the code. {short}

Examples assume `import sightline as sl`, `import torch` and `from torch import nn`.
"""


def api_page(package: str) -> str:
    """Return the page of one package."""
    module = import_module(f"sightline.{package}")
    purpose = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
    names = api_names(package)
    top = [name.rpartition(".")[2] for name in names if name.count(".") == 1]
    short = f"At the top level, as `sl.NAME`: {', '.join(f'`{name}`' for name in top)}." if top else ""
    head = HEAD.format(title=package.capitalize(), purpose=purpose, short=short)
    return "\n".join([head, *(f"::: {name}" for name in names)]) + "\n"


def api_names(package: str) -> list[str]:
    """Return the dotted names of a package's page; what `sightline` exports has its short name."""
    module = import_module(f"sightline.{package}")
    listed = [name for name in getattr(module, "__all__", ()) if _documented(getattr(module, name))]
    found: dict[object, str] = {}
    for name in chain(listed, PACKAGES[package]):
        thing = module if "." not in name else import_module(f"sightline.{package}.{name.rpartition('.')[0]}")
        last = name.rpartition(".")[2]
        value = getattr(thing, last)
        short = f"sightline.{last}"
        found.setdefault(value, short if getattr(sightline, last, None) is value else f"sightline.{package}.{name}")
    return list(found.values())


def _documented(thing: object) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


API_PAGES: dict[str, Callable[[], str]] = {
    f"api/{package}.md": (lambda package=package: api_page(package))  # type: ignore[misc]
    for package in PACKAGES
}
