"""Adversarial attacks: images that differ little, and that a model classifies differently.

Each attack takes images (B, C, H, W) in [0, 1] and returns images in [0, 1]; the model's normalization is applied inside.
The model is used in eval mode, every module's flag is restored, and only the gradient of the images is computed.
"""

from sightline.attacks.fast_gradient import ascent, fgsm, fgv, hot_cold, sign_step
from sightline.attacks.origin_target import LOTSResult, lots

__all__ = ["LOTSResult", "ascent", "fgsm", "fgv", "hot_cold", "lots", "sign_step"]
