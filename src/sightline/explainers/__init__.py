"""Explainers: from a model and images to saliency maps.

Examples:
    >>> sl.explainers.list_explainers()["gradcam"]["differentiable"]
    True
"""

from typing import Any, overload

from torch import Tensor, nn

from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.function import FunctionExplainer
from sightline.explainers.given import Explained, explain_given
from sightline.explainers.registry import EXPLAINERS, layer_for, needs_layer
from sightline.inference.precision import Precision, running_in
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.targets import GivenTargets, as_targets

__all__ = [
    "EXPLAINERS",
    "Explained",
    "Explainer",
    "FunctionExplainer",
    "create_explainer",
    "explain",
    "layer_for",
    "list_explainers",
    "needs_layer",
    "normalize_maps",
    "resize_maps",
]


def list_explainers() -> dict[str, dict[str, Any]]:
    """Return every explainer's name with its capabilities."""
    return EXPLAINERS.capabilities()


def create_explainer(name: str, **options: Any) -> Explainer:
    """Return an explainer by name.

    Args:
        name: name of an explainer; `sightline list explainers` prints all of them.
        **options: options of the explainer, as its class or function takes them.

    Returns:
        The explainer.

    Raises:
        SightlineError: no explainer has this name, or it has no such option, or a value is not accepted.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> explainer = sl.create_explainer("eigencam", center=True)
        >>> explainer(model, torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 64])
    """
    return EXPLAINERS.create(name, **options)


@overload
def explain(
    model: nn.Module,
    images: Tensor,
    method: str | Explainer = "gradcam",
    targets: GivenTargets = None,
    layer: LayerSelection = None,
    input_spec: InputSpec | None = None,
    precision: Precision = "fp32",
) -> Tensor: ...


@overload
def explain(
    model: nn.Module,
    images: Any,
    method: str | Explainer = "gradcam",
    targets: GivenTargets = None,
    layer: LayerSelection = None,
    input_spec: InputSpec | None = None,
    precision: Precision = "fp32",
) -> Explained: ...


def explain(
    model: nn.Module,
    images: Any,
    method: str | Explainer = "gradcam",
    targets: GivenTargets = None,
    layer: LayerSelection = None,
    input_spec: InputSpec | None = None,
    precision: Precision = "fp32",
) -> Tensor | Explained:
    """Explain images: return a saliency map for each of them.

    Args:
        model: a classifier that returns logits (B, K), or an object with `.logits`; it is left unchanged.
        images: float (B, C, H, W); in [0, 1] with an input spec, else as the model takes them. Or a path, a PIL image, an
            array, a list of these, a folder, a dataset, a loader or a table: they are resized, cropped and normalized as the
            input spec says.
        method: an explainer or its name; `sightline.explainers.list_explainers()` lists them.
        targets: what to explain: a class index, one for each image (a tensor, a list or an array), None for the predicted
            class of each image, or any scalar of the output: a function or one of `sightline.network.targets`.
        layer: the target layer: a name, a module, a `Layer` or a list of these; None chooses by the model's family.
        input_spec: normalizes the images inside. None = a tensor is normalized already; for other images it is as the model
            says, else that of ImageNet at 224 px, with a warning.
        precision: "bf16" runs the model under bfloat16 autocast, which is faster and changes the maps by rounding. Methods that
            this spoils stay in float32: Ablation-CAM, FullGrad, rules for gradients and the maps of attention.

    Raises:
        SightlineError: an argument is not as above; the message says which, and what is accepted.

    Returns:
        Of a tensor, saliency maps (B, H, W) in [0, 1]. Of images in any other form, an `Explained` with the images, maps and
        names that `sl.show` draws.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> maps = sl.explain(model, torch.rand(2, 3, 64, 64), method="gradcam")
        >>> maps.shape, maps.min().item() >= 0, maps.max().item() <= 1
        (torch.Size([2, 64, 64]), True, True)
    """
    explainer = create_explainer(method) if isinstance(method, str) else method
    with running_in(precision):
        if isinstance(images, Tensor):
            return explainer(model, images, targets=targets, layer=layer, input_spec=input_spec)
        return explain_given(explainer, model, images, as_targets(targets), layer, input_spec)
