"""Whether the default layer of a model is right."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.network.layout import Layer
from zoo import Size


@dataclass(frozen=True)
class Finding:
    """What the examination of a model's default layer gave.

    Attributes:
        layer: the default layer; None where sightline refuses to choose one.
        grid: (h, w) places of its activations.
        faults: what is wrong, in words; empty = it works.
        refusal: the error's message where sightline refuses.
    """

    layer: Layer | None
    grid: Size
    faults: tuple[str, ...]
    refusal: str = ""


def examine(model: nn.Module, size: Size) -> Finding:
    """Examine the default layer of a model with random weights, which this changes."""
    torch.manual_seed(0)
    _make_local(model, torch.randn(4, 3, *size))
    try:
        tap = sl.Tap(model)
        images = torch.randn(1, 3, *size)
        tapped, late, share = _late(tap, images, 7)
    except SightlineError as error:
        return Finding(None, (0, 0), (), str(error))
    layer, (activations,) = tapped.layers[0], tapped.activations
    grid = (activations.shape[2], activations.shape[3])
    faults = []
    if min(grid) < 2:
        faults.append("has one place in a direction")
    if tapped.raw[0].shape == tapped.logits.shape:
        faults.append("is the output")
    if layer.layout != "tokens" and late:
        faults.append(f"comes before the convolution {late[0]}")
    if share < (0.5 if layer.layout == "tokens" else 0.6):
        faults.append(f"is early: {share:.0%} of the layers with parameters come before it")
    if not _shows_changes_at_their_place(tap, images, grid):
        faults.append("shows a changed patch of the image elsewhere")
    classes = range(tapped.logits.shape[1])  # with random weights, a ReLU may stop the gradient of some
    strength = torch.stack([tapped.gradients(tapped.logits[:, k])[0].abs().amax(1) for k in classes]).amax(0)
    if (strength <= 1e-9 * strength.max()).float().mean() > 0.5:
        faults.append("has no gradient at most places")
    if all(sl.explain(model, images, targets=target).std() < 0.02 for target in classes):
        faults.append("gives flat maps")
    return Finding(layer, grid, tuple(faults))


def _make_local(model: nn.Module, images: Tensor) -> None:
    """Make a random network respond to what is near, as trained ones do, and give its norms the statistics of images."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d) and 1 < max(module.kernel_size) < 8:
                height, width = module.kernel_size
                module.weight[:, :, height // 2, width // 2] *= 4 * (height * width) ** 0.5
        for name, parameter in model.named_parameters():
            if name.endswith("attention_biases"):  # of LeViT and others: the first is that of a place for itself
                parameter[:, 0] = 30
            if name.endswith("alpha") and parameter.ndim == 2:  # of EfficientViM: the second weighs what mixes all
                parameter[1] = -6
            if name.endswith("context_module.main.proj.norm.weight"):  # of EfficientViT's global attention
                parameter *= 0.1
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        model(images)
    model.eval()


def _late(tap: sl.Tap, images: Tensor, classes: int) -> tuple[sl.network.tap.Tapped, list[str], float]:
    """Tap a model; return also the convolutions over several places after the layer, and the share of layers before it."""
    calls: list[str] = []
    late: list[str] = []
    handles = []
    for name, module in tap.model.named_modules():
        if not list(module.children()) and list(module.parameters(recurse=False)):

            def note(module: nn.Module, args: object, output: Tensor, name: str = name) -> None:
                calls.append(name)
                spatial = isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and min(output.shape[-2:]) > 1
                if "layer" in calls and spatial and module.out_channels != classes:
                    late.append(name)

            handles.append(module.register_forward_hook(note))
    layer = tap.model.get_submodule(tap.layers[0].name)
    handles.append(layer.register_forward_hook(lambda *_: calls.append("layer")))
    try:
        tapped = tap(images)
    finally:
        for handle in handles:
            handle.remove()
    return tapped, late, calls.index("layer") / (len(calls) - 1)


def _shows_changes_at_their_place(tap: sl.Tap, image: Tensor, grid: Size) -> bool:
    """Return whether a change of each corner of the image changes the activations of that corner most.

    Most of the four corners, for each change; or by most of the four changes, for each corner, since corners differ in how
    much they respond.
    """
    heights, widths = (max(side // n, side // 4) for side, n in zip(image.shape[2:], grid))
    high, wide = (max(1, n // 4) for n in grid)
    corners = [(rows, columns) for rows in (slice(None, heights), slice(-heights, None))
               for columns in (slice(None, widths), slice(-widths, None))]  # fmt: skip
    places = [(rows, columns) for rows in (slice(None, high), slice(-high, None))
              for columns in (slice(None, wide), slice(-wide, None))]  # fmt: skip
    changed = []
    for rows, columns in corners * 2:
        copy = image.clone()
        copy[:, :, rows, columns] = 2 * torch.randn_like(copy[:, :, rows, columns])
        changed.append(copy)
    (activations,) = tap(torch.cat([image, *changed])).activations
    change = (activations[1:] - activations[:1]).detach().square().sum(1).unflatten(0, (2, 4)).mean(0)
    table = torch.stack([change[:, rows, columns].mean((1, 2)) for rows, columns in places], 1)
    own = torch.arange(4)
    return bool((table.argmax(1) == own).all() or (table.argmax(0) == own).all())
