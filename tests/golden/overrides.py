"""How each study is made small: its overrides, as a table from dotted keys to values.

`keys` is merged into the study's own `keys`. `Pick(0, 2)` keeps these entries of the study's own list. Every study needs an
entry.
"""

import json
from typing import Any

import adapter

CNN, LENET = "sightline/small_cnn", "sightline/lenet5"
Table = dict[str, Any]


class Pick(tuple):
    """Places in a list that the study has."""

    def __new__(cls, *places: int) -> "Pick":
        return super().__new__(cls, places)


def recipe(model: str = CNN, **more: Any) -> Table:
    """Recipe keys of a small training; a double underscore stands for a dot."""
    stages = [{"epochs": 1, "lr": 0.01}]
    keys = {"model": {"name": model}, "image_size": 32, "batch_size": 8, "cache_images": True, "stages": stages}
    keys |= {"num_workers": 0}
    return keys | {key.replace("__", "."): value for key, value in more.items()}


def network(label: str, name: str = CNN, **keys: Any) -> Table:
    """An entry of an axis of networks."""
    return {"label": label, "keys": {"model": {"name": name}} | keys}


def lots(*columns: int, **options: Any) -> Table:
    """Few iterations for these columns."""
    given = {"iterations": 3} | options
    return {f"columns.{place}.options.{key}": value for place in columns for key, value in given.items()}


SMALL = {"name": CNN, "size": 32}
TINY = {"name": LENET, "size": 32}
PHOTOS = {"data.per_class": 3}
FEW_PETS = {"data.per_class": 4, "data.val": 2}
FEW_RECOMPOSED = {"data.source.per_class": 5, "data.source.val": 2, "data.size": 32}
FEW_STAMPED = {"data.source.per_class": 4, "data.source.val": 2}
PETS = {"keys": recipe(**FEW_PETS), "seeds": [0]}
RECOMPOSED = {"keys": recipe(**FEW_RECOMPOSED), "seeds": [0]}
RIA = {
    "model": {"name": CNN},
    "image_size": 32,
    "batch_size": 8,
    "cache_images": True,
    "num_workers": 0,
    "stages.0.epochs": 1,
    "stages.1.epochs": 1,
}
RIA_PRETRAINED = {
    "keys": {key: value for key, value in RIA.items() if not key.startswith("stages")} | {"model.weights": None},
    "grid.0": [network("ResNet50"), network("ResNet18", LENET)],
    "grid.1.0.keys.stages": [{"epochs": 1, "lr": 0.01, "trainable": "head"}],
    "grid.1.1.keys.stages": [{"epochs": 1, "lr": 0.01}],
}
SO = {"keys": recipe(), "seeds": [0]}
WALK = PHOTOS | {"model": SMALL, "method.options.iterations": 5}
CLASS_MAPS = PHOTOS | {"model": SMALL, "columns.2.options.samples": 2} | lots(6)
TAUGHT = {
    "keys": {"batch_size": 8, "stages.0.epochs": 2},
    "grid.0.0.keys.data.val": 2,
    "grid.0.1.keys.data.val": 2,
    "grid.0.2.keys.data.val": 2,
    "steps.1.changes": {"stages.0.epochs": 2},
    "steps.2.options.evaluations": 20,
    "steps.3.options.evaluations": 20,
    "grid.1": [network("LeNet-5", LENET)],
    "variants.0.keys": {"stages.0.epochs": 2},
    "variants.2.keys": {"guide": "attention_branch", "stages.0.epochs": 2},
    "seeds": [0],
    "paper_values": {"CIFAR-10, LeNet-5, IMPACTX": {"test/accuracy": 0.7065}},
}  # fmt: skip
CURVES = {
    "num_images": 4,
    "shown": 2,
    "method.options.evaluations": 20,
    "options": {"square": 4, "repeats": 2},
    "trained.changes": [f"{key}={json.dumps(value)}" for key, value in TAUGHT.items()],
}

FILTERS = {"keys": recipe(), "models.0.keys.guide": {"name": "iccnn", "groups": 3}, "num_images": 6, "filters": 2} | {
    "models.1.keys.guide": [{"name": "iccnn", "groups": 3}, {"name": "explanation_consistency", "explainer": "eigencam"}],
    "images_per_filter": 2,
}  # fmt: skip

TIMED_PARTS = {"lots/table-5.3"}  # studies whose parts hold nothing but times

OVERRIDES: dict[str, Table] = {
    "ec/cifar10": {"keys": recipe(data__per_class=6), "seeds": [0, 1], "variants": Pick(0, 2, 4)},
    "ec/figure-3": {
        "keys": recipe(),
        "num_images": 3,
        "models": [network("VGG-16", LENET, guide=None), network("VGG-16, ours", LENET), network("ResNet-50, ours")],
    },
    "ec/figure-4": {"keys": recipe(), "shown": 2},
    "ec/figure-5": FILTERS,
    "ec/figure-6": FILTERS,
    "ec/figure-7": {"keys": recipe(), "seeds": [0], "variants": Pick(0, 1, 6)},
    "ec/figure-8": {
        "keys": recipe(),
        "seeds": [0],
        "grid.0": Pick(0, 2),
        "variants": Pick(0, 1, 3),
    },
    "ec/figure-9ab": {
        "keys": recipe(data={"name": "pets", "root": "pets", "per_class": 5, "val": 2}),
        "columns": ["test/accuracy", "test/miou@gradcam"],
        "seeds": [0],
        "variants": Pick(0, 2, 5, 6),
        "rounds": 2,
    },
    "ec/figure-9cd": {
        "keys": recipe(),
        "seeds": [0],
        "grid.0": [network("ResNet-50"), network("VGG-16", LENET)],
        "variants": Pick(0, 1, 2),
        "outputs.0.eps": [0.01, 0.1],
    },
    "ec/table-1": {
        "keys": recipe(),
        "seeds": [0],
        "grid.0": [network("ResNet-50"), network("MobileNetV2", LENET)],
        "variants": Pick(0, 5),
        "paper_values": {},
    },
    "ec/table-2": {
        "keys": recipe(),
        "grid.0": [network("VGG-16", LENET)],
        "grid.1.1.keys.image_size": 32,
        "outputs.0.num_images": 3,
    },
    "ec/table-3": {"keys": recipe(), "variants": Pick(0, 2), "outputs.0.num_images": 3},
    "ec/table-4": {"keys": recipe(), "seeds": [0]},
    "ec/table-5": {"keys": recipe(), "seeds": [0, 1]},
    "impactx/cifar10": {
        "keys": {"batch_size": 8, "stages.0.epochs": 2, "data.val": 2, "data.per_class": 4},
        "steps.0.changes": {"stages.0.epochs": 2},
        "steps.1.options.evaluations": 20,
        "steps.2.options.evaluations": 20,
        "seeds": [0],
    },
    "impactx/controls": {
        "keys": {"batch_size": 8, "stages.0.epochs": 2, "data.val": 2, "data.per_class": 4},
        "steps.0.changes": {"stages.0.epochs": 2},
        "steps.1.options.evaluations": 20,
        "outputs.1.options.evaluations": 20,
        "outputs.1.num_images": 4,
        "variants.3.keys": {"stages.0.epochs": 2},
        "seeds": [0],
    },
    "impactx/figure-3": CURVES,
    "impactx/figure-4": CURVES,
    "impactx/figure-5": CURVES,
    "impactx/table-2": TAUGHT,
    "lots/figure-4.1": PHOTOS | {"model": SMALL, "options.iterations": 5, "options.blur": 5},
    "lots/figure-4.2": PHOTOS | {"model": SMALL, "options.iterations": 5, "options.blur": 5},
    "lots/figure-5.1": PHOTOS | {"model": SMALL} | lots(0, 1, 2),
    "lots/figure-5.2": CLASS_MAPS,
    "lots/figure-5.3": PHOTOS | {"model": SMALL, "num_images": 4, "abreast": 2} | lots(1),
    "lots/figure-5.4": PHOTOS | {"model": SMALL, "num_images": 6, "abreast": 3} | lots(1),
    "lots/figure-5.5": PHOTOS | {"model": SMALL, "columns.1.model": TINY, "num_images": 4, "abreast": 2} | lots(0, 1),
    "lots/figure-5.6": PHOTOS | {"model": SMALL} | lots(*range(7)),
    "lots/figure-5.7": {"data.root": "pets", "model": SMALL, "columns.4.options.samples": 2} | lots(0, 1),
    "lots/figure-A.1": CLASS_MAPS,
    "lots/figure-A.2": CLASS_MAPS | {"model": TINY},
    "lots/figure-A.3": CLASS_MAPS,
    "lots/figure-A.4": WALK,
    "lots/figure-A.5": WALK,
    "lots/figure-A.6": WALK,
    "lots/figure-A.7": WALK,
    "lots/section-6.2": PHOTOS
    | {
        "model": SMALL,
        "num_images": 4,
        "method.options.iterations": 4,
        "metrics.insertion.steps": 8,
        "metrics.deletion.steps": 8,
        "axes.iterations": [2, 4],
        "axes.tau": [0.1, 10.0],
        "axes.alpha": [0.00392157, 0.0156863],
    },
    "lots/table-5.1": {
        "data.per_class": 2,
        "num_images": 6,
        "metrics.insertion.steps": 8,
        "metrics.deletion.steps": 8,
        "models": [{"label": "ResNet-50"} | SMALL],
        **{f"explainers.{place}.options.iterations": 3 for place in range(3)},
    },
    "lots/table-5.2": PHOTOS
    | {
        "num_images": 4,
        "metrics.insertion.steps": 8,
        "metrics.deletion.steps": 8,
        "models": [{"label": "AlexNet"} | TINY, {"label": "ResNet-50"} | SMALL],
        "explainers.3.options.samples": 2,
        "explainers.6.num_images": 3,
        "explainers.6.options.iterations": 3,
        "paper_values": {"AlexNet": {"Grad-CAM": {"coherency": 0.7501}}},
    },
    "lots/table-5.3": {
        "models": [{"label": "AlexNet"} | TINY, {"label": "ResNet-50"} | SMALL],
        "rounds": 2,
        "methods.3.options.samples": 2,
        "methods.6.options.iterations": 2,
        "paper_values": {"Grad-CAM": {"AlexNet": 11.28}},
    },
    "pets/boxes": RECOMPOSED | {"variants": Pick(0, 2, 3)},
    "pets/compositions": RECOMPOSED | {"variants": Pick(0, 1, 5)},
    "pets/debiasing": RECOMPOSED | {"variants": Pick(0, 1, 5)},
    "pets/digits": {
        "keys": recipe(LENET, data__copies=1, data__size=32, batch_size=64, train_fraction=0.3),
        "seeds": [0],
        "variants": Pick(3, 8),
    },
    "pets/digits-baseline": {
        "keys": recipe(LENET, data__copies=1, data__size=32, batch_size=64, train_fraction=0.3),
        "seeds": [0],
        "variants": Pick(0, 8, 12),
    },
    "pets/guides": RECOMPOSED | {"variants": Pick(0, 3, 6, 11)},
    "pets/iccnn": RECOMPOSED | {"variants": Pick(0, 2), "seeds": [0, 1]},
    "pets/masks": RECOMPOSED | {"variants": Pick(1, 5, 6, 9)},
    "pets/no-annotation": RECOMPOSED | {"steps.0.model": {"name": CNN}, "variants": Pick(0, 3)},
    "pets/plain": PETS | {"variants": Pick(0, 2, 6)},
    "pets/reweighting-plain": PETS | {"variants": Pick(0, 3, 5)},
    "pets/reweighting": RECOMPOSED | {"variants": Pick(1, 2, 4)},
    "pets/robustness": PETS | {"variants": Pick(0, 1, 3), "outputs.0.eps": [0.01, 0.04]},
    "pets/stamped": {"keys": recipe(**FEW_STAMPED), "seeds": [0], "variants": Pick(0, 4, 8, 11)},
    "pets/strong-plain": PETS | {"variants": Pick(0, 3)},
    "pets/strong-weights": RECOMPOSED | {"variants": Pick(1, 3, 10, 12)},
    "pets/strong": RECOMPOSED | {"variants": Pick(0, 3, 8, 11, 12)},
    "pets/views": RECOMPOSED | {"variants": Pick(0, 1, 3)},
    "pets/weights": RECOMPOSED | {"variants": Pick(0, 7, 10, 18)},
    "ria/figure-1": {"keys": RIA, "num_images": 2},
    "ria/figure-3": RIA_PRETRAINED,
    "ria/figure-4": {"keys": RIA, "grid.0": [network("VGG16", optimizer="sgd"), network("ResNet18", LENET)]},
    "ria/figure-5": {"keys": RIA, "num_images": 3},
    "ria/figure-6": {"keys": RIA, "num_images": 3},
    "ria/figure-7": {"keys": RIA | {"model": {"name": LENET}}, "num_images": 3},
    "ria/table-1": {
        "keys": RIA,
        "grid.0": [network("VGG16", optimizer="sgd"), network("ResNet18", LENET)],
        "paper_values": {},
        "seeds": [0, 1],
    },
    "ria/table-2": RIA_PRETRAINED | {"paper_values": {}, "seeds": [0]},
    "so-loss/figure-1": {"keys": recipe(LENET, stages=[{"epochs": 10, "lr": 0.005}])},
    "so-loss/figure-2": {"keys": recipe()},
    "so-loss/figure-5": {"keys": recipe(), "num_images": 3},
    "so-loss/figure-6": SO | {"variants": Pick(0, 1, 3)},
    "so-loss/figure-7": SO | {"variants": Pick(0, 2)},
    "so-loss/figure-8": SO | {"variants": Pick(0, 3)},
    "so-loss/table-1": {
        "keys": recipe(),
        "seeds": [0],
        "grid.1": [network("ResNet-18")],
        "variants": Pick(0, 2),
        "paper_values": {},
    },
}


def overrides_of(name: str) -> list[str]:
    """The overrides of a study, `paper/item`, as the command line takes them."""
    study = adapter.study_values(*name.split("/"))
    found = []
    for key, value in OVERRIDES[name].items():
        if isinstance(value, Pick):
            own = _value(study, key)
            value = [own[place] for place in value]
        elif key == "keys":
            value = study.get(key, {}) | value
        found.append(f"{key}={json.dumps(value)}")
    return found


def _value(values: Any, key: str) -> Any:
    for step in key.split("."):
        values = values[int(step)] if isinstance(values, list) else values[step]
    return values
