"""Adversarial attacks: images that differ little, and that a model classifies differently.

Each attack takes images (B, C, H, W) in [0, 1] and returns images in [0, 1]; the model's normalization is applied inside.
The model is used in eval mode, every module's flag is restored, and only the gradient of the images is computed.

Examples:
    >>> model, spec = sl.load_model("sightline/small_cnn", classes=2)
    >>> images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    >>> changed = sl.attacks.fgsm(model, images, labels, eps=0.01)
    >>> (changed - images).abs().max().item() < 0.011
    True
"""

from sightline.attacks.fast_gradient import ascent, fgsm, fgv, hot_cold, sign_step
from sightline.attacks.origin_target import LOTSResult, lots

__all__ = ["LOTSResult", "ascent", "fgsm", "fgv", "hot_cold", "lots", "sign_step"]
