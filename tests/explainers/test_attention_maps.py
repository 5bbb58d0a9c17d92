"""Explainers of transformers against their formulas, written out on a tiny ViT, and against the peers."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, Wrapper
from sightline.errors import SightlineError
from sightline.explainers import EXPLAINERS, normalize_maps, resize_maps
from vits import GRID, SIZE, TARGETS, embed, images, randomized, unfused, vit

timm = pytest.importorskip("timm")
NAMES = [entry.name for entry in EXPLAINERS if entry.capabilities.get("needs_attention")]


def unit(tokens: Tensor) -> Tensor:
    """Values of patches in row order (B, N) as maps."""
    return normalize_maps(resize_maps(tokens.unflatten(1, GRID), SIZE))


# ---- the ViT by hand ----


def block_by_hand(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block with its attention (B, heads, N, N), as a tensor that the result is differentiable by."""
    q, k, v = (part.unflatten(2, (2, 6)).transpose(1, 2) for part in block.attn.qkv(block.norm1(x)).chunk(3, 2))
    weights = torch.exp(torch.einsum("bhid,bhjd->bhij", q, k) / 6**0.5)
    weights = weights / weights.sum(3, keepdim=True)
    mixed = torch.einsum("bhij,bhjd->bihd", weights, v).flatten(2)
    x = x + block.attn.proj(mixed)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)))), weights


def head_by_hand(model: Any, x: Tensor, pool: str) -> Tensor:
    if pool == "token":
        return model.head(model.norm(x)[:, 0])
    return model.head(model.fc_norm(x[:, model.num_prefix_tokens :].mean(1)))


POOLS = {
    "token": {},
    "avg": {"global_pool": "avg"},
    "avg, no class token": {"global_pool": "avg", "class_token": False},
}


@pytest.fixture(params=POOLS)
def pooled(request: pytest.FixtureRequest) -> tuple[nn.Module, str, list[Tensor], Tensor]:
    """A ViT, how it pools, its attention, and its logits."""
    model = vit(**POOLS[request.param])
    x, attention = embed(model, images()), []
    for block in model.blocks:
        x, weights = block_by_hand(block, x)
        attention.append(weights)
    logits = head_by_hand(model, x, request.param)
    torch.testing.assert_close(logits, model(images()))
    return model, request.param, attention, logits


def read_from(model: Any, pool: str, flow: Tensor) -> Tensor:
    """What the tokens that are read have of each patch, from that of all tokens (B, N, N)."""
    prefix = model.num_prefix_tokens
    return flow[:, 0, prefix:] if pool == "token" else flow[:, prefix:, prefix:].mean(1)


def test_attention_rollout_is_the_product_of_the_blocks(pooled: tuple[nn.Module, str, list[Tensor], Tensor]) -> None:
    model, pool, attention, _ = pooled
    flow = torch.eye(attention[0].shape[-1], dtype=torch.float64).expand(3, -1, -1)
    for weights in attention:
        with_residual = weights.mean(1) + torch.eye(weights.shape[-1])
        flow = with_residual / with_residual.sum(2, keepdim=True) @ flow
    expected = unit(read_from(model, pool, flow).detach())
    torch.testing.assert_close(sl.explain(model, images(), "attention_rollout"), expected)
    torch.testing.assert_close(sl.explain(model, images(), "attention_rollout", TARGETS), expected)


def test_transformer_attribution_equals_its_formula(pooled: tuple[nn.Module, str, list[Tensor], Tensor]) -> None:
    model, pool, attention, logits = pooled
    gradients = torch.autograd.grad(logits[torch.arange(3), TARGETS].sum(), attention)
    flow = torch.eye(attention[0].shape[-1], dtype=torch.float64).expand(3, -1, -1)
    for weights, gradient in zip(attention, gradients):
        flow = flow + (weights * gradient).clamp_min(0).mean(1) @ flow
    expected = unit(read_from(model, pool, flow).detach())
    assert expected.amax() == 1
    torch.testing.assert_close(sl.explain(model, images(), "transformer_attribution", TARGETS), expected)


@pytest.mark.parametrize("blocks", [None, 3, 2, 1])
def test_legrad_equals_its_formula(pooled: tuple[nn.Module, str, list[Tensor], Tensor], blocks: int | None) -> None:
    model, pool, *_ = pooled
    x, found = embed(model, images()), []
    for block in model.blocks:
        x, weights = block_by_hand(block, x.detach())
        mean = x.mean(1)
        scores = model.head(model.norm(mean) if pool == "token" else model.fc_norm(mean))[torch.arange(3), TARGETS]
        (gradient,) = torch.autograd.grad(scores.sum(), weights)
        found.append(gradient.clamp_min(0).mean((1, 2))[:, model.num_prefix_tokens :])
    expected = unit(torch.stack(found[-(blocks or 3) :]).mean(0))
    legrad = sl.create_explainer("legrad", blocks=blocks)
    torch.testing.assert_close(legrad(model, images(), TARGETS), expected)


def test_grad_eclip_equals_its_formula() -> None:
    model = vit()
    x = embed(model, images())
    for block in model.blocks[:-1]:
        x, _ = block_by_hand(block, x)
    block = model.blocks[-1]
    q, k, v = block.attn.qkv(block.norm1(x)).detach().chunk(3, 2)
    heads = [part.unflatten(2, (2, 6)).transpose(1, 2) for part in (q, k, v)]
    mixed = ((heads[0] @ heads[1].mT / 6**0.5).softmax(-1) @ heads[2]).transpose(1, 2).flatten(2).requires_grad_()
    after = x + block.attn.proj(mixed)
    after = after + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(after))))
    logits = head_by_hand(model, after, "token")
    (gradient,) = torch.autograd.grad(logits[torch.arange(3), TARGETS].sum(), mixed)
    expected = torch.zeros(3, 6, dtype=torch.float64)
    for image in range(3):
        cosines = [q[image, 0] @ key / (q[image, 0].norm() * key.norm()) for key in k[image, 1:]]
        for place, value in enumerate(v[image, 1:]):
            likeness = (cosines[place] - min(cosines)) / (max(cosines) - min(cosines))
            expected[image, place] = max(0, likeness * (gradient[image, 0] @ value))
    torch.testing.assert_close(sl.explain(model, images(), "grad_eclip", TARGETS), unit(expected))


def test_grad_eclip_names_what_it_is_not_defined_for() -> None:
    with pytest.raises(sl.NotDefinedError, match="its score reads 6 tokens after the last attention"):
        sl.explain(vit(global_pool="avg"), images(), "grad_eclip")
    with pytest.raises(sl.NotDefinedError, match="fused_attn=True in timm"):
        sl.explain(unfused(vit()), images(), "grad_eclip")
    pooled = sl.explain(vit(global_pool="map", class_token=False), images(), "grad_eclip", TARGETS)
    assert pooled.amax() == 1


def test_legrad_equals_that_of_torch_cam() -> None:
    methods = pytest.importorskip("torchcam.methods")
    model = randomized(torchvision.models.VisionTransformer(32, 8, 3, 2, 12, 24, num_classes=4))
    legrad = getattr(methods, "LeGrad", None) or pytest.skip("this torch-cam has no LeGrad")
    with legrad(model, list(model.encoder.layers)) as cam:
        (expected,) = cam(TARGETS.tolist(), model(images((32, 32))))
    expected = normalize_maps(resize_maps(expected.detach(), (32, 32)))
    torch.testing.assert_close(sl.explain(model, images((32, 32)), "legrad", TARGETS), expected, atol=1e-4, rtol=0)


def test_attention_of_hugging_face_is_the_one_that_rollout_follows() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, image_size=SIZE, patch_size=8,
        num_labels=4, attn_implementation="eager",
    )  # fmt: skip
    model = randomized(transformers.ViTForImageClassification(config))
    flow = torch.eye(7, dtype=torch.float64)
    for weights in model(images(), output_attentions=True).attentions:
        flow = (weights.mean(1).double() + torch.eye(7)) / 2 @ flow
    torch.testing.assert_close(sl.explain(model, images(), "attention_rollout"), unit(flow[:, 0, 1:].double().detach()))
    eager = {name: sl.explain(model, images(), name, TARGETS) for name in NAMES if name != "grad_eclip"}
    model.set_attn_implementation("sdpa")
    for name, expected in eager.items():
        found = sl.explain(model, images(), name, TARGETS)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # eager attention has a softmax in float32


def test_a_pooling_attention_reads_the_tokens() -> None:
    model = vit(global_pool="map", class_token=False)
    x, flow = embed(model, images()), torch.eye(6, dtype=torch.float64).expand(3, -1, -1)
    for block in model.blocks:
        x, weights = block_by_hand(block, x)
        flow = (weights.mean(1) + torch.eye(6)) / 2 @ flow
    pool, x = model.attn_pool, model.norm(x)
    q = pool.q(pool.latent).unflatten(2, (2, 6)).transpose(1, 2)
    k = pool.kv(x)[..., :12].unflatten(2, (2, 6)).transpose(1, 2)
    weights = (q @ k.mT / 6**0.5).softmax(-1).mean(1)
    expected = unit((weights @ flow)[:, 0].detach())
    torch.testing.assert_close(sl.explain(model, images(), "attention_rollout"), expected)


# ---- every explainer of transformers ----


@pytest.fixture(scope="module")
def windows() -> list[nn.Module]:
    """Transformers whose tokens do not look at all tokens."""
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1, 1), num_heads=(1, 2))
    transformers = pytest.importorskip("transformers")
    config = transformers.PvtV2Config(
        hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2], image_size=56
    )
    return [swin, transformers.PvtV2ForImageClassification(config)]


@pytest.mark.parametrize("name", NAMES)
def test_other_forms_of_a_model_give_its_maps(name: str) -> None:
    model = vit()
    expected = sl.explain(model, images(), name, TARGETS)
    assert expected.shape == (3, *SIZE)
    assert expected.amax() == 1
    others = [] if name == "grad_eclip" else [unfused(vit())]
    for other in (*others, Wrapper(model), vit().requires_grad_(False), torch.compile(vit(), backend="eager")):
        torch.testing.assert_close(sl.explain(other, images(), name, TARGETS), expected)
    with torch.inference_mode():
        torch.testing.assert_close(sl.explain(model, images(), name, TARGETS), expected)
    one_by_one = [sl.explain(model, x[None], name, int(t)) for x, t in zip(images(), TARGETS)]
    torch.testing.assert_close(torch.cat(one_by_one), expected)
    layer = sl.Layer("blocks.2.norm1", "tokens", prefix=1)
    torch.testing.assert_close(sl.explain(model, images(), name, TARGETS, layer), expected)
    predicted = model(images()).argmax(1)
    assert torch.equal(sl.explain(model, images(), name), sl.explain(model, images(), name, predicted))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_models_give_float32_maps_close_to_the_exact_ones(name: str) -> None:
    expected = sl.explain(vit().float(), images().float(), name, TARGETS)
    found = sl.explain(vit().bfloat16(), images().bfloat16(), name, TARGETS)
    assert found.dtype == torch.float32
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.95
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(sl.explain(vit().float(), images().float(), name, TARGETS), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_as_before(name: str) -> None:
    model = vit().train()
    model.head.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    trained = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    expected = [sl.explain(model, image[None], name, 1) for image in images()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: sl.explain(model, image[None], name, 1), images().repeat(3, 1, 1, 1)))
    assert all(map(torch.equal, found, expected * 3))
    assert all(map(torch.equal, model.state_dict().values(), state.values()))
    assert trained == {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    with pytest.raises(SightlineError, match="targets range over"):
        sl.explain(model, images(), name, 9)
    assert all(module.training and not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_models_without_attention_are_named(name: str, windows: list[nn.Module]) -> None:
    with pytest.raises(sl.NotDefinedError, match="not defined for TinyCNN"):
        sl.explain(TinyCNN().double(), images(), name)
    for model in windows:
        with pytest.raises(sl.NotDefinedError, match=f"not defined for {type(model).__name__}"):
            sl.explain(model, torch.rand(2, 3, 56, 56), name)
    with pytest.raises(SightlineError, match="score has no gradient"):
        sl.explain(vit(), images(), name, lambda logits: torch.ones(len(logits)))
    with pytest.raises(SightlineError, match=r"torch.jit"):
        sl.explain(torch.jit.script(nn.Sequential(nn.Identity())), images(), name)


def test_legrad_rejects_more_blocks_than_there_are() -> None:
    with pytest.raises(SightlineError, match="blocks is 4; expected at most 3"):
        sl.create_explainer("legrad", blocks=4)(vit(), images())
