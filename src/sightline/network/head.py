"""The part of a model that classifies."""

from collections.abc import Sequence

import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.network.branch import is_within, own_modules
from sightline.network.execution import record_blank
from sightline.network.families import known_models
from sightline.network.structure import output_layers


def head_name(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that hold the classifier.

    A model of timm declares them, in a wrapper too. Of another known model it is the last linear or convolution layer, and of
    any other, such as a backbone under a custom head, what runs last on a black image.

    Raises:
        SightlineError: the model has no layer that can classify.
    """
    layers = [name for name, module in own_modules(model).items() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise SightlineError(
            f"{type(model).__name__} has no linear or convolution layer, so it has no head; use a model with one"
        )
    known = list(known_models(model))
    if len(known) == 1 and all(is_within(name, known[0]) for name in layers):  # nothing around it classifies
        if declared := _declared(model, known[0]):
            return declared
        if known == [""]:
            return (layers[-1],)
    try:
        return output_layers(model, record_blank(model)) or (layers[-1],)
    except SightlineError:  # it takes no blank image
        return (layers[-1],)


def _declared(model: nn.Module, outer: str) -> tuple[str, ...]:
    """Return what a timm model in a model declares as its classifier; () where it declares none, or has taken it off."""
    known = model.get_submodule(outer)
    names = (getattr(known, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    if any(next(known.get_submodule(name).parameters(), None) is None for name in names):
        return ()
    return tuple(f"{outer}.{name}" if outer else name for name in names)


def reorder_head(model: nn.Module, places: Sequence[int]) -> None:
    """Put the logits of a classifier in another order: logit k becomes the one that was at places[k].

    Raises:
        SightlineError: the layers of the head do not have one row for each logit.
    """
    count = len(places)
    for parameter in (parameters := head_parameters(model)):
        if parameter.shape[0] != count and not (count == 2 and parameter.shape[0] == 1):
            raise SightlineError(
                f"the head has parameters of shapes {[tuple(p.shape) for p in parameters]}; expected one row for each of "
                f"{count} classes, which can be put in another order"
            )
    with torch.no_grad():
        for parameter in parameters:
            if parameter.shape[0] == count:
                parameter.copy_(parameter[list(places)])
            elif list(places) == [1, 0]:
                parameter.neg_()  # of a single logit, whose sign tells two classes apart


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the classifier, for stages that train the head alone."""
    return [p for name in head_name(model) for p in model.get_submodule(name).parameters()]
