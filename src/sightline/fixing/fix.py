"""`fix`: mend a classifier that looks at the wrong place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline._core.checks import check_count
from sightline.fixing.mending.mend import mend, open_networks
from sightline.fixing.reading import read_given
from sightline.fixing.result import Fixed
from sightline.fixing.writing import check_output, write_fixed
from sightline.models.opening import OpenedModel, open_model

Masks = Mapping[str, np.ndarray]


def fix(
    model: str | nn.Module,
    data: Any,
    masks: str | Path | Masks | None = None,
    boxes: str | Path | None = None,
    avoid: str | Path | Masks | None = None,
    pretrained: str | Path | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Fixed:
    """Fit the head of a classifier again, on images where only the object stays and what must not matter changes.

    The network itself does not change. Objects of images that nobody marked are found: from the masks of others by an attention
    on features, and without any mask by GrabCut. Each image is seen as it is and with the background of another image, or with
    its region to avoid painted over or exchanged. A logistic regression on these features, pooled by an attention that the
    masks teach or plainly, is the new head. The network (the given one or the same with pretrained weights), the pooling and
    the penalty are chosen by cross-validation on marked images whose background is exchanged.

    Args:
        model: a classifier with one linear head, or what `sightline.models.opening.open_model` opens.
        data: labelled images in any form that `sightline.given.as_dataset` takes: a folder of images in class folders,
            a dataset or loader of (image, label), a table with paths, a list. Its labels must be right; where it has masks or
            regions to avoid, they are used. Images that cannot be read are left out; a warning and the notes name them.
        masks: where objects are, for some or all images: a folder of masks with the images' relative paths, or masks (h, w) by
            path, not 0 = object. None = those of the data, else objects are found.
        boxes: boxes of objects, a CSV or COCO file or a folder of VOC files; GrabCut turns them into masks.
        avoid: what must not matter, like `masks`.
        pretrained: weights of the same architecture from before it learned the shortcut: a file, or `timm/<name>` or
            `torchvision/<name>`. None = those of the model's library if they can be had; "none" = the given network alone.
        size: side of the input in pixels; None = the model's own.
        mean: mean of the normalization, one value per channel; None = the model's own.
        std: standard deviation of the normalization, likewise.
        output: a folder to write, which must be new; None = nothing is written.
        weights: weights file of a model given by name.
        classes: the name of each class in the order of the logits, or a file with one a line.
        seed: random seed of crops, partners and folds.
        progress: show bars.

    Returns:
        The mended model with what shows that it is mended.

    Raises:
        SightlineError: an argument is not as above, the model has no linear head, or no image is left to choose by.

    Examples:
        >>> digits = sl.data.create_dataset("digits", size=32, copies=1)  # bundled; the background predicts the digit
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=5)
        >>> fixed = sl.fix(model, digits["val"], size=32, mean=[0.5], std=[0.5], pretrained="none")
        >>> fixed.model.training
        False
    """
    check_count(0, seed=seed)
    if output is not None:
        check_output(Path(output))
    opened = open_model(model, weights, size=size, mean=mean, std=std, classes=classes)
    reference = model if isinstance(model, str) else None
    return fix_opened(opened, reference, data, masks, boxes, avoid, pretrained, output, seed=seed, progress=progress)


def fix_opened(
    opened: OpenedModel,
    reference: str | None,
    data: Any,
    masks: str | Path | Masks | None,
    boxes: str | Path | None,
    avoid: str | Path | Masks | None,
    pretrained: str | Path | None,
    output: str | Path | None,
    *,
    seed: int,
    progress: bool,
) -> Fixed:
    """Do what `fix` does for a model that is open; `reference` is its name, None for a module."""
    given = read_given(opened, data, masks, boxes, avoid)
    networks = open_networks(opened, reference, None if pretrained is None else str(pretrained))
    fixed = mend(networks, given, seed, bars=progress)
    if output is None:
        return fixed
    return replace(fixed, report=write_fixed(fixed, opened, given, Path(output)))
