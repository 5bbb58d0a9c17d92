"""What is explained: every target worked by hand on outputs of a few numbers, and through models of every kind of output."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.explainers import normalize_maps
from sightline.network.targets import AgainstSimilar, Contrast, detection, joint, resolve_score, semantic

LOGITS = torch.tensor([[1.0, 5.0, 3.0], [7.0, 2.0, 4.0]])
EACH = torch.arange(2)
CAMS = [
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "layercam",
    "eigencam",
    "randomcam",
    "smoothgradcam++",
    "augmented",
]


def ask(targets: Any, output: Any = LOGITS, of: Tensor = EACH, copies: Any = None) -> list[float]:
    """The scores of `copies` by a target that was settled on `output`."""
    return resolve_score(targets, output)(output if copies is None else copies, of).tolist()


# ---- by hand ----


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, [5.0, 7.0]),
        (2, [3.0, 4.0]),
        (torch.tensor(2), [3.0, 4.0]),
        (torch.tensor([0, 1], dtype=torch.uint8), [1.0, 2.0]),
        (Contrast(), [5.0 - 3.0, 7.0 - 4.0]),
        (Contrast(0), [1.0 - 5.0, 7.0 - 4.0]),
        (Contrast(versus=2), [5.0 - 3.0, 7.0 - 4.0]),
        (Contrast(torch.tensor([0, 1]), 2), [1.0 - 3.0, 2.0 - 4.0]),
        (Contrast(1, torch.tensor([2, 0])), [5.0 - 3.0, 2.0 - 7.0]),
        (AgainstSimilar(count=1, weight=1.0), [5.0 - 3.0, 7.0 - 4.0]),
        (AgainstSimilar(0, 1, 0.5), [1.0 - 3.0 / 2, 7.0 - 4.0 / 2]),
        (AgainstSimilar(2, 9, 1.0), [3.0 - (1.0 + 5.0) / 2, 4.0 - (7.0 + 2.0) / 2]),
        (joint(1), [5.0, 2.0]),
        (joint(0, 2), [4.0, 11.0]),
        (lambda logits: logits.sum(1), [9.0, 13.0]),
    ],
)
def test_targets_select_the_expected_scores(targets: Any, expected: list[float]) -> None:
    assert ask(targets) == expected


def test_the_runner_up_is_the_second_even_if_every_logit_is_negative() -> None:
    assert ask(Contrast(), -LOGITS) == [-1.0 + 3.0, -2.0 + 4.0]


def test_rows_are_asked_about_the_class_of_the_image_that_they_are_copies_of() -> None:
    of = torch.tensor([1, 1, 0])
    copies = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0], [70.0, 80.0, 90.0]])
    assert ask(None, of=of, copies=copies) == [10.0, 40.0, 80.0]  # classes 1 and 0, by LOGITS
    assert ask(torch.tensor([2, 1]), of=of, copies=copies) == [20.0, 50.0, 90.0]
    assert ask(Contrast(), of=of, copies=copies) == [10.0 - 30.0, 40.0 - 60.0, 80.0 - 90.0]  # runners-up 2 and 2


def test_an_output_with_logits_will_do() -> None:
    class Output:
        logits = LOGITS

    assert ask(Contrast(), Output()) == [2.0, 3.0]
    assert ask(joint(0, 2), Output()) == [4.0, 11.0]


PLANES = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)  # image i, category k: 12 i + 4 k + (0, 1, 2, 3)


class WithLogits(OrderedDict):
    """As transformers return it: a dict whose values are attributes too."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


@pytest.mark.parametrize("output", [PLANES, {"out": PLANES, "aux": -PLANES}, WithLogits(logits=PLANES)], ids=type)
def test_semantic_sums_the_logits_of_the_region(output: Any) -> None:
    region = torch.tensor([[1, 0], [0, 1]])
    assert ask(semantic(1), output) == [4.0 + 5 + 6 + 7, 16.0 + 17 + 18 + 19]
    assert ask(semantic(1, region), output) == [4.0 + 7, 16.0 + 19]
    assert ask(semantic(1, region.bool()), output) == [4.0 + 7, 16.0 + 19]
    assert ask(semantic(1, torch.stack([region, 1 - region])), output) == [4.0 + 7, 17.0 + 18]
    assert ask(semantic(torch.tensor([2, 0]), region), output) == [8.0 + 11, 12.0 + 15]


def test_regions_and_boxes_follow_the_image_that_a_row_is_a_copy_of() -> None:
    of = torch.tensor([1, 0, 1])
    regions = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    copies = torch.cat([PLANES, PLANES[:1]])
    assert ask(semantic(0, regions), PLANES, of, copies) == [3.0, 12.0, 3.0]

    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 2, 2]])
    # Image 1's box overlaps the first object by a quarter and the second by a half, of score 0.8.
    assert ask(detection(1, boxes), found(), of, found() + found()[:1]) == pytest.approx([0.4, 0.0, 0.4])


def found() -> list[dict[str, Tensor]]:
    """What a detector found in two images: three objects, and one of another category."""
    return [
        {
            "boxes": torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 2], [0.0, 0, 4, 4]]),
            "labels": torch.tensor([1, 1, 2]),
            "scores": torch.tensor([0.9, 0.8, 0.3]),
        },
        {
            "boxes": torch.tensor([[0.0, 0, 4, 4]]),
            "labels": torch.tensor([2]),
            "scores": torch.tensor([0.7]),
        },
    ]


def test_detection_scores_the_overlapping_box() -> None:
    # Overlaps of the box (0, 0, 4, 2) with the objects: a half, 1, a half.
    assert ask(detection(1, (0, 0, 4, 2)), found()) == pytest.approx([0.8, 0.0])
    assert ask(detection(2, (0, 0, 4, 2)), found()) == pytest.approx([0.15, 0.35])
    assert ask(detection(torch.tensor([1, 2]), (0, 0, 4, 4)), found()) == pytest.approx([0.9, 0.7])


# ---- through models ----


class Segmenter(nn.Module):
    """A convolution, and one of 1 x 1 that classifies each place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.classifier = nn.Conv2d(4, 3, 1, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.features(x))}


class Detector(nn.Module):
    """Finds one object of each of two categories at places that do not change; scores are the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        boxes = x.new_tensor([[0, 0, 4, 4], [4, 4, 8, 8]])
        labels = torch.tensor([1, 2], device=x.device)
        return [{"boxes": boxes, "labels": labels, "scores": s} for s in self.features(x).mean((2, 3)).sigmoid()]


def test_gradcam_of_a_segmentation_equals_the_weighted_features() -> None:
    model, images = Segmenter().double(), torch.randn(2, 3, 6, 8, dtype=torch.float64)
    region = torch.zeros(6, 8)
    region[:3, :2] = 1
    maps = sl.explain(model, images, "gradcam", targets=semantic(2, region), layer="features")
    # The logit of category 2 is linear in the activations: every channel's gradient is its weight inside the region.
    weights = model.classifier.weight[2] * 6 / 48
    by_hand = (weights * model.features(images)).sum(1).relu()
    torch.testing.assert_close(maps, normalize_maps(by_hand).detach())

    inside = sl.explain(model, images, "hirescam", targets=semantic(2, region), layer="features")
    assert inside.amax() == 1
    assert (inside[:, 3:] == 0).all()
    assert (inside[:, :, 2:] == 0).all()


def test_gradcam_of_a_detection_is_that_of_its_score() -> None:
    model, images = Detector().double(), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    maps = sl.explain(model, images, "gradcam", targets=detection(2, (4, 4, 8, 8)), layer="features")
    # Only channel 1 matters, and with a positive weight: sigmoid rises.
    torch.testing.assert_close(maps, normalize_maps(model.features(images)[:, 1].relu()).detach())
    nowhere = sl.explain(model, images, "gradcam", targets=detection(1, (4, 4, 8, 8)), layer="features")
    assert torch.equal(nowhere, torch.zeros_like(nowhere))  # found, but without overlap: nothing to explain


@pytest.mark.parametrize("name", CAMS)
@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        (Segmenter, semantic(1)),
        (Segmenter, lambda output: output["out"][:, 1].amax((1, 2))),
        (Detector, detection(torch.tensor([1, 2]), torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 8, 8]]))),
        (Detector, lambda output: torch.stack([each["scores"].sum() for each in output])),
    ],
    ids=["semantic", "a function of planes", "detection", "a function of detections"],
)
def test_every_cam_explains_outputs_that_are_no_logits(name: str, kind: type[nn.Module], targets: Any) -> None:
    model, images = kind(), torch.randn(2, 3, 8, 8)
    maps = sl.explain(model, images, name, targets=targets, layer="features")
    assert maps.shape == (2, 8, 8)
    assert maps.amin() >= 0
    assert 0 < maps.amax() <= 1
    assert not torch.equal(maps[0], maps[1])


def test_a_contrast_is_the_difference_of_two_maps_and_joint_their_sum_before_the_positive_part() -> None:
    model, images = TinyCNN().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    activations = model.features[:3](images).detach().requires_grad_()

    def signed(k: int) -> Tensor:
        logits = model.classifier(model.head(model.features[3](activations)))
        (g,) = torch.autograd.grad(logits[:, k].sum(), activations)
        return (g.mean((2, 3), keepdim=True) * activations).sum(1).detach()

    for targets, by_hand in ((Contrast(2, 0), signed(2) - signed(0)), (joint(2, 0), signed(2) + signed(0))):
        expected = normalize_maps(by_hand.relu())
        assert expected.amax() == 1
        torch.testing.assert_close(sl.explain(model, images, targets=targets, layer="features.2"), expected)


def test_a_real_detector_can_be_explained() -> None:
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_score_thresh=0.0
    ).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (answer,) = model(image)
    best = int(answer["scores"].argmax())
    label, box = int(answer["labels"][best]), answer["boxes"][best]
    targets = detection(label, tuple(box.tolist()))
    assert ask(targets, [answer], torch.tensor([0])) == pytest.approx([float(answer["scores"][best])], rel=1e-5)
    maps = sl.explain(model, image, "hirescam", targets=targets, layer="backbone.body.16")
    assert maps.shape == (1, 64, 64)
    assert maps.amax() == 1


# ---- bad input ----


@pytest.mark.parametrize(
    ("targets", "output", "message"),
    [
        (3, LOGITS, r"targets range over \[3, 3\]; the model has classes 0 .. 2"),
        (-1, LOGITS, r"targets range over \[-1, -1\]"),
        (torch.tensor([0.0, 1.0]), LOGITS, "targets have dtype torch.float32"),
        (torch.tensor([True, False]), LOGITS, "targets have dtype torch.bool"),
        (torch.tensor([0, 1, 2]), LOGITS, r"targets have shape \(3,\); expected \(2,\)"),
        ([0, 1], LOGITS, "targets is a list; expected class indices, None, a Target or a function"),
        (None, PLANES, r"the model returned shape \(2, 3, 2, 2\); expected logits"),
        (Contrast(1, 1), LOGITS, r"the same class for images \[0, 1\]"),
        (Contrast(versus=1), LOGITS, r"the same class for images \[0\]"),
        (Contrast(versus=3), LOGITS, r"range over \[3, 3\]"),
        (joint(0, 3), LOGITS, r"range over \[3, 3\]; the model has classes 0 .. 2"),
        (semantic(0), LOGITS, r"semantic: the model returned shape \(2, 3\); expected logits \(B, K, h, w\)"),
        (semantic(0), {"masks": PLANES}, "semantic: the model returned dict"),
        (semantic(3), PLANES, "category is 3; the output has categories 0 .. 2"),
        (semantic(-1), PLANES, "category is -1"),
        (semantic(0, torch.ones(3, 3)), PLANES, r"region has shape \(3, 3\); the output's is \(2, 2\)"),
        (semantic(0, torch.ones(1, 2, 2)), PLANES, r"region has shape \(1, 2, 2\); expected one for all images"),
        (semantic(torch.tensor([1]), None), PLANES, r"category has shape \(1,\)"),
        (detection(1, (0, 0, 1, 1)), LOGITS, "detection: the model returned Tensor; expected a list with a dict"),
        (detection(1, (0, 0, 1, 1)), [{"boxes": torch.ones(1, 4)}] * 2, "expected a list with a dict of boxes"),
        (lambda logits: logits, LOGITS, r"target function returned shape \(2, 3\); expected one score per image, \(2,\)"),
        (lambda logits: 1.0, LOGITS, "target function returned float"),
    ],
)  # fmt: skip
def test_invalid_targets_raise_with_their_value(targets: Any, output: Any, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        ask(targets, output)


def test_joint_needs_a_class() -> None:
    with pytest.raises(SightlineError, match="joint: no class was given"):
        joint()


def test_a_score_without_a_graph_is_rejected() -> None:
    model = TinyCNN().eval()
    with pytest.raises(SightlineError, match="does not depend on the target layer"):
        sl.explain(model, torch.rand(2, 3, 8, 8), targets=lambda logits: logits.detach()[:, 0], layer="features")


def test_a_layer_that_returns_no_tensor_is_named() -> None:
    class Dictionary(TinyCNN):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.Module()
            self.parts.forward = lambda x: {"size": 8, "x": x}  # type: ignore[method-assign]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.parts(x)["x"])

    with pytest.raises(SightlineError, match="'parts' returned a int"):
        sl.explain(Dictionary().eval(), torch.rand(2, 3, 8, 8), layer="parts")
