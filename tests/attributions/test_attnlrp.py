"""AttnLRP against its rules, written out on a tiny ViT as relevances that are handed back layer by layer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, Wrapper
from vits import SIZE, TARGETS, embed, images, unfused, vit

timm = pytest.importorskip("timm")


def through(function: Callable[[Tensor], Tensor], x: Tensor, relevance: Tensor) -> Tensor:
    """The epsilon rule, epsilon 0, for a function that is linear up to a bias: x_i sum_j (dy_j / dx_i) R_j / y_j."""
    x = x.detach().requires_grad_()
    y = function(x)
    (back,) = torch.autograd.grad(y, x, relevance / y.detach())
    return (x * back).detach()


def add(a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    return a / (a + b) * relevance, b / (a + b) * relevance


def norm(layer: nn.LayerNorm, x: Tensor, relevance: Tensor) -> Tensor:
    deviation = (x.var(-1, correction=0, keepdim=True) + layer.eps).sqrt()
    return through(lambda x: (x - x.mean(-1, keepdim=True)) / deviation * layer.weight + layer.bias, x, relevance)


def attention(qkv: Tensor, relevance: Tensor) -> Tensor:
    """From the relevance of mixed values (B, N, C) to that of queries, keys and values (B, N, 3 C), by the paper's sums."""
    q, k, v = (part.unflatten(2, (2, 6)).transpose(1, 2) for part in qkv.chunk(3, 2))
    scores = q @ k.mT / 6**0.5
    weights = scores.softmax(-1)
    share = relevance.unflatten(2, (2, 6)).transpose(1, 2) / (2 * (weights @ v))
    of_weights = weights * torch.einsum("bhid,bhjd->bhij", share, v)
    of_v = v * torch.einsum("bhij,bhid->bhjd", weights, share)
    of_scores = scores * (of_weights - weights * of_weights.sum(3, keepdim=True))
    share = of_scores / (2 * scores * 6**0.5)
    of_q, of_k = q * (share @ k), k * (share.mT @ q)
    return torch.cat([part.transpose(1, 2).flatten(2) for part in (of_q, of_k, of_v)], 2)


def relevances(model: Any, x: Tensor, targets: Tensor) -> Tensor:
    """The relevance (B, 3, H, W) of pixels for a logit each of a ViT with a class token."""
    with torch.no_grad():
        tokens, kept = embed(model, x), []
        for block in model.blocks:
            normed = block.norm1(tokens)
            qkv = block.attn.qkv(normed)
            q, k, v = (part.unflatten(2, (2, 6)).transpose(1, 2) for part in qkv.chunk(3, 2))
            mixed = ((q @ k.mT / 6**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
            between = tokens + block.attn.proj(mixed)
            hidden = block.mlp.fc1(block.norm2(between))
            kept.append((block, tokens, normed, qkv, mixed, between, hidden))
            tokens = between + block.mlp.fc2(F.gelu(hidden))
    logits = model.head(model.norm(tokens)[:, 0]).detach()
    back = torch.zeros_like(logits)
    back[torch.arange(len(x)), targets] = logits[torch.arange(len(x)), targets]
    read = torch.zeros_like(tokens)
    read[:, 0] = through(model.head, model.norm(tokens)[:, 0], back)
    back = norm(model.norm, tokens, read)
    for block, tokens, normed, qkv, mixed, between, hidden in reversed(kept):
        back, branch = add(between, block.mlp.fc2(F.gelu(hidden)).detach(), back)
        branch = through(block.mlp.fc2, F.gelu(hidden), branch)  # and what GELU gets is what its input gets
        branch = norm(block.norm2, between, through(block.mlp.fc1, block.norm2(between), branch))
        back, branch = add(tokens, block.attn.proj(mixed).detach(), back + branch)
        branch = attention(qkv, through(block.attn.proj, mixed, branch))
        back = back + norm(block.norm1, tokens, through(block.attn.qkv, normed, branch))
    return through(lambda x: embed(model, x), x, back)


def test_every_pixel_gets_the_relevance_of_the_rules() -> None:
    model = vit()
    expected = relevances(model, images(), TARGETS)
    explainer = sl.create_explainer("attnlrp", raw=True)
    for same in (model, unfused(vit()), Wrapper(model), vit().requires_grad_(False)):
        found = explainer(same, images(), TARGETS)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)
    maps = sl.explain(model, images(), "attnlrp", TARGETS)
    torch.testing.assert_close(maps, sl.explainers.normalize_maps(expected.sum(1).relu()))


class Gated(nn.Module):
    """A product of two parts, an activation spelled out, GroupNorm, RMSNorm, and a vector scaled to length 1."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = lambda x: x * torch.sigmoid(1.7 * x)) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.norm, self.rms = nn.GroupNorm(2, 8, affine=False), nn.RMSNorm(8)
        self.gate, self.up = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.head, self.activation = nn.Linear(8, 4, bias=False), activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.rms(self.norm(self.embed(x)).flatten(2).mT)
        x = self.activation(self.gate(x)) * self.up(x)
        x = x.mean(1)
        return self.head(x / x.norm(dim=1, keepdim=True) + F.normalize(x))


def test_gates_norms_and_activations_keep_the_relevance() -> None:
    torch.manual_seed(0)
    for activation in (lambda x: x * torch.sigmoid(1.7 * x), F.silu, F.gelu, torch.tanh, nn.ReLU(inplace=True)):
        model = Gated(activation).double()
        found = sl.create_explainer("attnlrp", raw=True)(model, images(), TARGETS)
        torch.testing.assert_close(found.sum((1, 2, 3)), model(images())[torch.arange(3), TARGETS].detach())
        assert found.abs().amax() > 1e-3


def test_a_network_of_relus_gets_input_x_gradient() -> None:
    model = TinyCNN().double().eval()
    model.features[1], model.features[3], model.head[3] = nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU()
    for raw in (True, False):
        theirs = sl.create_explainer("input_x_gradient", raw=raw)(model, images(), 1)
        torch.testing.assert_close(sl.create_explainer("attnlrp", raw=raw)(model, images(), 1), theirs)


@pytest.mark.parametrize("library", ["torchvision", "transformers", "timm, pooled"])
def test_vits_of_other_libraries_get_the_relevance_of_the_rules(library: str) -> None:
    torch.manual_seed(0)
    if library == "torchvision":
        torchvision = pytest.importorskip("torchvision")
        model = torchvision.models.VisionTransformer(24, 8, 2, 2, 12, 24, num_classes=4)
        nn.init.normal_(model.heads[0].weight)
    elif library == "transformers":
        transformers = pytest.importorskip("transformers")
        model = transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=24,
                patch_size=8, num_labels=4, attn_implementation="sdpa",
            )
        )  # fmt: skip
    else:
        model = vit(global_pool="map", class_token=False, img_size=24)
    x = torch.rand(2, 3, 24, 24, dtype=torch.float64)
    model = model.double().eval()
    found = sl.create_explainer("attnlrp", raw=True)(model, x, 1)
    assert found.abs().amax() > 0
    if library == "transformers":
        model.set_attn_implementation("eager")
        eager = sl.create_explainer("attnlrp", raw=True)(model, x, 1)
        torch.testing.assert_close(eager, found, atol=float(1e-5 * found.abs().amax()), rtol=1e-3)


def test_the_model_is_as_before() -> None:
    model = vit().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert sl.explain(model, images(), "attnlrp").shape == (3, *SIZE)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
