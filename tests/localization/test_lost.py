"""LOST: the keys that it starts from, what it finds in them, and an image's way through it."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.eva import Eva
from torch import Tensor, nn
from torchvision import models

from sightline import InputSpec, SightlineError, load_model
from sightline.localization.keys import last_keys, patch_size
from sightline.localization.lost import box_around, discover, lost
from sightline.network.modes import evaluating
from sightline.regions.boxes import peak_boxes

SPEC = InputSpec((0.5,) * 3, (0.5,) * 3, (32, 32))
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}


def literal_lost(keys: Tensor, height: int, width: int, candidates: int) -> tuple[int, set[int], np.ndarray, list[int]]:
    """LOST on one image, patch by patch: its seed, expansion, region and box."""
    k, n = keys.double().numpy(), height * width
    similarity = [[float(k[p] @ k[q]) for q in range(n)] for p in range(n)]
    degree = [sum(similarity[p][q] >= 0 for q in range(n)) for p in range(n)]
    order = sorted(range(n), key=lambda p: (degree[p], p))
    seed = order[0]
    voters = {p for p in order[:candidates] if similarity[seed][p] >= 0}
    region = np.array([sum(similarity[p][q] for q in voters) >= 0 for p in range(n)]).reshape(height, width)
    found, frontier = {divmod(seed, width)}, [divmod(seed, width)]
    while frontier and region[divmod(seed, width)]:
        row, column = frontier.pop()
        for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            inside = 0 <= place[0] < height and 0 <= place[1] < width
            if inside and region[place] and place not in found:
                found.add(place)
                frontier.append(place)
    rows, columns = [r for r, _ in found], [c for _, c in found]
    return seed, voters, region, [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@pytest.mark.parametrize("candidates", [1, 7, 100])
@pytest.mark.parametrize("channels", [2, 5, 24])
def test_lost_equals_the_literal_version(channels: int, candidates: int) -> None:
    keys = torch.randn(6, 7 * 5, channels)
    found = discover(keys, (7, 5), candidates)
    for i, one in enumerate(keys):
        seed, voters, region, box = literal_lost(one, 7, 5, candidates)
        assert found.seeds[i] == seed
        assert set(found.expanded[i].nonzero().flatten().tolist()) == voters
        assert (found.regions[i].numpy() == region).all()
        assert found.boxes[i].tolist() == box


def test_discover_finds_the_box_of_a_blob() -> None:
    grid, boxes = (14, 18), [[3, 2, 9, 8], [0, 0, 4, 4], [10, 9, 18, 14], [6, 5, 7, 6]]
    inside = torch.zeros(4, *grid, dtype=torch.bool)
    for one, (x1, y1, x2, y2) in zip(inside, boxes):
        one[y1:y2, x1:x2] = True
    direction = torch.randn(4, 1, 16)
    keys = torch.where(inside.flatten(1)[:, :, None], direction, -direction) + 0.2 * torch.randn(4, 14 * 18, 16)
    found = discover(keys, grid)
    assert found.boxes.tolist() == boxes
    assert (found.regions == inside).all()


def test_discover_of_two_blobs_takes_the_one_with_the_seed() -> None:
    inside = torch.zeros(10, 10, dtype=torch.bool)
    inside[1:4, 1:4] = inside[6:9, 5:9] = True
    inside[4, 4] = True  # touches the first at a corner, which does not join them
    keys = torch.where(inside.flatten()[:, None], 1.0, -1.0)
    found = discover(keys[None], (10, 10))
    assert (found.regions[0] == inside).all()
    assert found.seeds.item() == 11  # all patches of the object have one degree: the first of them
    assert found.boxes.tolist() == [[1, 1, 4, 4]]


def test_zero_keys_are_all_alike() -> None:
    found = discover(torch.zeros(1, 6, 4), (2, 3))
    assert found.regions.all()
    assert found.boxes.tolist() == [[0, 0, 3, 2]]


def test_a_place_outside_a_region_gives_itself() -> None:
    region = np.zeros((4, 5), dtype=bool)
    region[1, 1] = region[2, 2] = True
    assert box_around(region, (3, 4)) == (4, 3, 5, 4)
    assert box_around(region, (1, 1)) == (1, 1, 2, 2)


def test_peak_boxes_take_the_component_of_the_maximum() -> None:
    saliency = torch.zeros(5, 7)
    saliency[1, 1], saliency[2, 2], saliency[2, 3], saliency[4, 6] = 0.6, 0.9, 0.5, 0.9
    maps = torch.stack([saliency, saliency / 2])
    boxes, found = peak_boxes(maps)
    assert boxes[0].tolist() == [1, 1, 3, 3]  # of two maxima the first in row order; 0.5 is not above 0.5
    assert found.tolist() == [True, False]
    assert peak_boxes(maps, 0.4)[0].tolist() == [[1, 1, 4, 3], [2, 2, 3, 3]]


def test_discover_invalid_keys_raise() -> None:
    with pytest.raises(SightlineError, match=r"expected \(B, 6, C\)"):
        discover(torch.zeros(1, 5, 4), (2, 3))
    with pytest.raises(SightlineError, match="NaN or infinity"):
        discover(torch.full((1, 6, 4), torch.nan), (2, 3))
    with pytest.raises(SightlineError, match="candidates is 0"):
        discover(torch.zeros(1, 6, 4), (2, 3), candidates=0)


def tiny_vit(**options: object) -> nn.Module:
    return timm.models.VisionTransformer(**{**SMALL, **options})


def keys_by_hand(model: nn.Module, inputs: Tensor) -> Tensor:
    """The second third of what the last block's qkv gives for its normalised input."""
    seen = {}
    block = model.blocks[-1]
    handle = block.register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0]))
    with torch.no_grad(), evaluating(model):
        model(inputs)
        handle.remove()
        qkv = block.attn.qkv(block.norm1(seen["tokens"]))
    return qkv[:, model.num_prefix_tokens :, 24:48]


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}])
def test_last_keys_of_a_timm_model_are_those_of_its_attention(options: dict[str, object]) -> None:
    model, inputs = tiny_vit(**options), torch.rand(2, 3, 32, 32)
    keys, grid = last_keys(model, inputs)
    assert grid == (4, 4)
    torch.testing.assert_close(keys, keys_by_hand(model, inputs))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not keys.requires_grad


def test_keys_at_another_size_are_those_of_a_dynamic_model() -> None:
    model, dynamic, inputs = tiny_vit(), tiny_vit(dynamic_img_size=True), torch.rand(2, 3, 40, 24)
    dynamic.load_state_dict(model.state_dict())
    keys, grid = last_keys(model, inputs)
    assert grid == (5, 3)
    torch.testing.assert_close(keys, keys_by_hand(dynamic, inputs))
    with pytest.raises(AssertionError):  # the model is left as it was
        model(inputs)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 24)


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
def test_keys_of_a_wrapped_model_are_those_of_the_model_inside(size: tuple[int, int]) -> None:
    model, inputs = tiny_vit(), torch.rand(2, 3, *size)
    keys, grid = last_keys(nn.Sequential(nn.Identity(), nn.Sequential(model)), inputs)
    expected, same = last_keys(model, inputs)
    assert grid == same
    torch.testing.assert_close(keys, expected)
    assert patch_size(nn.Sequential(model)) == patch_size(model)


@pytest.mark.parametrize("fused", [True, False])
def test_last_keys_of_one_projection_and_of_three_are_its_keys(fused: bool) -> None:
    options = {**SMALL, "qkv_fused": fused, "use_rot_pos_emb": True}
    model, inputs, seen = Eva(**options, dynamic_img_size=True), torch.rand(2, 3, 32, 48), {}
    attention = model.blocks[-1].attn
    attention.register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0]))
    keys, grid = last_keys(model, inputs)
    assert grid == (4, 6)
    weight = attention.qkv.weight[24:48] if fused else attention.k_proj.weight
    torch.testing.assert_close(keys, (seen["tokens"] @ weight.T)[:, 1:].detach())
    assert last_keys(Eva(**options), inputs[..., :32])[1] == (4, 4)
    with pytest.raises(SightlineError, match="dynamic_img_size=True"):
        last_keys(Eva(**options), inputs)


class Plain(nn.Module):
    """Attention as DINO's own code has it: a `qkv` without further modules, after a class token."""

    def __init__(self, patch: int | tuple[int, int] = 8) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 8, 8)
        self.patch_embed.patch_size = patch
        self.qkv = nn.Linear(12, 36)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        return self.qkv(torch.cat([torch.zeros(len(x), 1, 12), tokens], 1))[:, 0]


@pytest.mark.parametrize("patch", [8, (8, 8)])
def test_keys_of_a_model_that_is_not_timms(patch: int | tuple[int, int]) -> None:
    model, inputs = Plain(patch), torch.rand(2, 3, 16, 24)
    keys, grid = last_keys(model, inputs)
    assert grid == (2, 3)
    tokens = model.patch_embed(inputs).flatten(2).transpose(1, 2)
    torch.testing.assert_close(keys, model.qkv(tokens)[..., 12:24].detach())


def test_models_without_such_keys_are_rejected() -> None:
    with pytest.raises(SightlineError, match="plain vision transformer"):
        last_keys(models.resnet18(), torch.rand(1, 3, 32, 32))
    windows = timm.models.SwinTransformer(img_size=56, depths=(1, 1), embed_dim=12, num_heads=(1, 1), num_classes=0)
    with pytest.raises(SightlineError, match="plain vision transformer"):
        last_keys(windows, torch.rand(1, 3, 56, 56))
    with pytest.raises(SightlineError, match="divisible by the patches' 8 x 8"):
        last_keys(tiny_vit(), torch.rand(1, 3, 32, 30))


def test_boxes_come_back_in_the_images_own_pixels() -> None:
    model, images = tiny_vit(), torch.rand(3, 3, 50, 69)
    boxes = lost(model, images, SPEC)
    resized = nn.functional.interpolate(images, (48, 72), mode="bilinear", antialias=True)
    keys, grid = last_keys(model, SPEC.normalize(resized))
    assert grid == (6, 9)
    torch.testing.assert_close(boxes, discover(keys, grid).boxes * torch.tensor([69 / 9, 50 / 6, 69 / 9, 50 / 6]))
    torch.testing.assert_close(lost(model, images, SPEC, internal_batch_size=1), boxes)
    coarse = lost(model, images, SPEC, size=24)  # three patches by four
    steps = coarse / torch.tensor([69 / 4, 50 / 3, 69 / 4, 50 / 3])
    torch.testing.assert_close(steps, steps.round())
    with pytest.raises(SightlineError, match="size is 0"):
        lost(model, images, SPEC, size=0)


def test_lost_with_a_random_transformer_gives_boxes_inside_the_image(data_folder: Path) -> None:
    from sightline.data.image_files import read_image

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    for path in sorted((data_folder / "pets" / "images").glob("*.jpg"))[:3]:
        image = read_image(path)[None] / 255
        x1, y1, x2, y2 = lost(model, image, SPEC, size=128)[0].tolist()
        assert 0 <= x1 < x2 <= image.shape[3] + 1e-3
        assert 0 <= y1 < y2 <= image.shape[2] + 1e-3


@pytest.mark.slow
def test_trained_dino_finds_pets(data_folder: Path, tmp_path: Path) -> None:
    from sightline.data import create_dataset
    from sightline.localization.detectors import LostBoxes
    from sightline.localization.writing import write_boxes

    files = list((data_folder / "weights").glob("vit_small_patch16_224.dino.*"))
    if not files:
        pytest.skip(
            "no DINO weights at hand: put timm's as weights/vit_small_patch16_224.dino.safetensors into the data"
        )
    pets = create_dataset("pets", root=str(data_folder / "pets"), per_class=10, val=70)["train"]
    written = write_boxes(
        pets, tmp_path / "boxes.csv", LostBoxes(*load_model("timm/vit_small_patch16_224.dino", files[0]))
    )
    assert written.corloc is not None
    assert written.corloc > 0.5  # a box of the whole photograph gets less
