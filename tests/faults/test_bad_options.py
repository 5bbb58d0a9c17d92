"""Bad inputs: every option of every data set, guide, explainer and metric gets values of other types."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import nn

import sightline as sl
from sightline._core.registry import Entry, Registry
from sightline._core.typed_options import _annotations as annotations
from sightline._core.typed_options import check_options
from sightline.acquisition.registry import QUERY_STRATEGIES
from sightline.data import DATASETS
from sightline.data.transforms import train_transform
from sightline.errors import SightlineError
from sightline.explainers.registry import EXPLAINERS
from sightline.guides.registry import GUIDES
from sightline.metric_base.registry import METRICS
from sightline.models.registry import MODELS

REGISTRIES = [DATASETS, GUIDES, EXPLAINERS, METRICS, QUERY_STRATEGIES, MODELS]
AUGMENT = Entry("augment", train_transform)

WRONG: dict[Any, list[Any]] = {
    int: ["abc", [1], 1.5, True, {"a": 1}, 10**30, 10**5000, math.nan, b"1"],
    float: ["abc", [1], False, {"a": 1}, math.nan, math.inf, "1e-3"],
    str: [3, [1], {"a": 1}, True, 1.5],
    bool: ["yes", 1, 0, [True], "true"],
}
EACH = [object(), {1, 2}, 1 + 2j]  # fits nothing that has an annotation


def wrong_values(annotation: Any) -> Iterator[Any]:
    """Values that fit no part of an annotation; for a choice, a name that is not among them."""
    union = get_origin(annotation) in (Union, UnionType)
    parts = [part for part in (get_args(annotation) if union else (annotation,)) if part is not type(None)]
    if len(parts) == 1 and parts[0] in (int, float, str, bool):
        yield from WRONG[parts[0]]
        if annotation is parts[0]:
            yield None
    if annotation is not Any:
        yield from EACH


def options_of(registry: Registry[Any]) -> list[tuple[Entry[Any], str, Any]]:
    return [(entry, name, a) for entry in registry for name, a in annotations(entry.factory).items()]


def stand_in(annotation: Any) -> Any:
    if get_origin(annotation) is Mapping:
        return {"name": "digits", "size": 8}
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    made: dict[Any, Any] = {str: "gradcam", int: 2, float: 0.5, nn.Module: nn.Linear(2, 2)}
    return next((made[kind] for kind in made if kind in (annotation, *get_args(annotation))), None)


def given(entry: Entry[Any], option: str, value: Any) -> dict[str, Any]:
    """The option with whatever else must be given, of its own type."""
    parameters = inspect.signature(entry.factory).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    found = annotations(entry.factory)
    others = {name: stand_in(found[name]) for name in needed if name != option and name in found}
    return {**others, option: value}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)
def test_option_of_another_type_raises_with_its_name(registry: Registry[Any]) -> None:
    tried = 0
    for entry, option, annotation in options_of(registry):
        for value in wrong_values(annotation):
            tried += 1
            with pytest.raises(SightlineError) as caught:
                entry(**given(entry, option, value))
            assert str(caught.value).startswith(f"{option} is "), (entry.name, option, value, str(caught.value))
    assert tried >= {"dataset": 150, "guide": 150, "explainer": 150, "metric": 150}.get(registry.noun, 1)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)
def test_options_that_do_not_exist(registry: Registry[Any]) -> None:
    for entry in registry:
        with pytest.raises(SightlineError, match="nonsense"):
            entry(**given(entry, "nonsense", 1))


@pytest.mark.parametrize("registry", [GUIDES, EXPLAINERS, METRICS], ids=lambda registry: registry.noun)
def test_choices_that_do_not_exist(registry: Registry[Any]) -> None:
    for entry, option, annotation in options_of(registry):
        if any(get_origin(part) is Literal for part in (annotation, *get_args(annotation))):
            with pytest.raises(SightlineError, match="nonsense"):
                entry(**given(entry, option, "nonsense"))


@pytest.mark.parametrize(
    "options",
    [
        {"crop": "abc"}, {"crop": [0.5]}, {"crop": None}, {"crop": 0}, {"crop": 2}, {"crop": math.nan}, {"flip": "no"},
        {"flip": 1}, {"jitter": "0.1"}, {"jitter": -1}, {"jitter": 1}, {"jitter": {"a": 1}}, {"zoom": 1}, {"crop": True},
    ],
)  # fmt: skip
def test_augmentation_invalid_values_raise(options: dict[str, Any]) -> None:
    with pytest.raises(SightlineError, match=next(iter(options))):
        AUGMENT(size=8, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sl.SegmentOverlap(beta=[1]),
        lambda: sl.SegmentOverlap(beta="0.5"),
        lambda: sl.SegmentOverlap(views=[1]),
        lambda: sl.SegmentOverlap("gradcam"),
        lambda: sl.guides.create_guide("segment_overlap", views=[1]),
        lambda: sl.guides.from_config({"name": "segment_overlap", "scale": "abc"}),
        lambda: sl.guides.from_config({"name": "segment_overlap", "scale": [1]}),
        lambda: sl.guides.from_config({"name": "segment_overlap", "scale": math.nan}),
        lambda: sl.guides.from_config({"name": ["segment_overlap"]}),
        lambda: sl.guides.from_config({}),
        lambda: sl.guides.from_config(3),
        lambda: sl.guides.from_config([3]),
        lambda: sl.guides.from_config([["nothing"]]),
        lambda: sl.data.create_dataset("digits", size="1"),
        lambda: sl.data.create_dataset("digits", size=True),
        lambda: sl.data.create_dataset("digits", size=1),
        lambda: sl.data.create_dataset("digits", size=-8),
        lambda: sl.data.create_dataset("digits", copies=0),
        lambda: sl.data.create_dataset("digits", seed=10**30),
        lambda: sl.data.create_dataset("folder", root=3),
        lambda: sl.data.create_dataset("folder", root=[]),
        lambda: sl.data.create_dataset("folder", root=None),
        lambda: sl.data.create_dataset("folder", root=""),
        lambda: sl.data.create_dataset("folder", root="\0"),
        lambda: sl.data.create_dataset("folder", root="x" * 5000),
        lambda: sl.data.create_dataset("folder"),
        lambda: sl.data.create_dataset("biased", source="digits"),
        lambda: sl.data.create_dataset("biased", source={}),
        lambda: sl.data.create_dataset("biased", source={1: 2}),
        lambda: sl.data.create_dataset("biased", source={"name": 3}),
        lambda: sl.data.create_dataset("biased", source={"name": "digits", "size": "a"}),
        lambda: sl.explainers.create_explainer("gradcam", smooth=3),
        lambda: sl.explainers.create_explainer("gradcam", smooth="both"),
        lambda: sl.explainers.create_explainer("gradcam", eps=1),
        lambda: sl.explainers.create_explainer("gradcam++", eps="1"),
        lambda: sl.explainers.create_explainer("integrated_gradients", steps=2.5),
        lambda: sl.explainers.create_explainer("integrated_gradients", steps="many"),
    ],
)  # fmt: skip
def test_calls_with_invalid_arguments_raise(make: Callable[[], object]) -> None:
    with pytest.raises(SightlineError):
        make()


def test_option_of_a_fitting_type_passes() -> None:
    def factory(
        a: float = 0.0, b: int = 0, c: str = "", d: Sequence[float] = (), e: "Mapping[str, Any] | None" = None,
        f: tuple[float, float] = (0, 1), g: bool = False, h: torch.Tensor | None = None, i: Any = None, j=None,
    ) -> None: ...  # fmt: skip

    for options in [
        {"a": 1}, {"a": np.float32(0.5)}, {"a": np.int64(3)}, {"b": np.int32(3)}, {"c": __import__("pathlib").Path("x")},
        {"d": (1, 2.5)}, {"d": [1]}, {"d": np.ones(3)}, {"e": {"k": [1]}}, {"e": None}, {"f": [0.1, 1]}, {"g": np.bool_(True)},
        {"h": torch.ones(1)}, {"i": object()}, {"j": object()},
    ]:  # fmt: skip
        check_options(factory, options)
