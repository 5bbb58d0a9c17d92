"""Attributions by gradients with respect to the input: saliency, SmoothGrad, input x gradient, integrated gradients."""

import torch
from torch import Tensor

from sightline._core.checks import check_count, check_non_negative
from sightline._core.seeding import seeded
from sightline.attributions.attribution import AttributionRequest, Baseline, attribution


@attribution("saliency", signed=False)
def saliency(request: AttributionRequest) -> Tensor:
    """Saliency: the gradient of the score with respect to the input (Simonyan et al. 2014).

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency
            Maps" (ICLR workshop 2014), section 3.
    """
    from captum.attr import Saliency

    captum = Saliency(request.forward)
    return captum.attribute(request.input_leaf(), abs=False, additional_forward_args=(request.image_index,))


@attribution("smoothgrad", signed=False)
def smoothgrad(request: AttributionRequest, *, samples: int = 50, noise: float = 0.15, seed: int = 0) -> Tensor:
    """SmoothGrad: the gradient averaged over noisy copies of the image (Smilkov et al. 2017).

    The signed gradients are averaged, as the paper's equation says, and the magnitude is taken of the mean.

    `samples` copies (the paper sees no gain beyond 50), with Gaussian noise of `noise` times the image's range
    (0.1 to 0.2 in the paper), the same draw for every image.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        samples: Number of noisy copies per image. The paper sees no gain beyond 50.
        noise: Standard deviation of the noise, as a share of the range of the image's values. The paper takes 0.1 to 0.2.
        seed: Random seed of the noise.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Smilkov et al., "SmoothGrad: removing noise by adding noise" (2017), section 2.2.
    """
    from captum.attr import NoiseTunnel, Saliency

    check_count(samples=samples)
    check_non_negative(noise=noise)
    captum = NoiseTunnel(Saliency(request.forward))
    parts = []
    for one in request.split():  # Captum takes one noise level a call
        low, high = torch.aminmax(one.inputs)
        with seeded(one.inputs.device, seed, "smoothgrad"):
            part = captum.attribute(
                one.inputs,
                nt_samples=samples,
                nt_samples_batch_size=one.copies,
                stdevs=noise * float(high - low),
                abs=False,
                additional_forward_args=(one.image_index,),
            )
        parts.append(part)
    return torch.cat(parts)


@attribution("input_x_gradient")
def input_x_gradient(request: AttributionRequest) -> Tensor:
    """Input x gradient: every input value times the score's gradient there (Shrikumar et al. 2016).

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation Differences"
            (2016), which compares this product with DeepLIFT.
    """
    from captum.attr import InputXGradient

    return InputXGradient(request.forward).attribute(
        request.input_leaf(), additional_forward_args=(request.image_index,)
    )


@attribution("integrated_gradients")
def integrated_gradients(request: AttributionRequest, *, steps: int = 50, baseline: Baseline = 0.0) -> Tensor:
    """Integrated gradients: gradients along the line from a baseline, times the difference (Sundararajan et al. 2017).

    `steps` points of a Gauss-Legendre quadrature (Captum's; the paper finds 20 to 300 Riemann steps to be enough). The baseline
    is in the units of the model's input: 0 is the mean color of the training images where inputs are normalized.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        steps: Number of points of the Gauss-Legendre quadrature along the line.
        baseline: Start of the line: a number, or a tensor that broadcasts to (1, C, H, W), in the units of
            the model's input. The default is the mean color of the training images where inputs are normalized.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), sections 3 and 5.
    """
    from captum.attr import IntegratedGradients

    check_count(steps=steps)
    return IntegratedGradients(request.forward).attribute(
        request.inputs,
        request.baseline(baseline),
        additional_forward_args=(request.image_index,),
        n_steps=steps,
        internal_batch_size=request.rows,
    )
