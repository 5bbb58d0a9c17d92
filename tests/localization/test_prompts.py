"""Prompts from maps and boxes, and the masks that segmenters make of them."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

import sightline as sl
from networks import TinyCNN
from sightline import SightlineError, data
from sightline.data.dataset import InMemory, Sample
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.loader import on_image
from sightline.localization.detectors import Box, BoxDetector
from sightline.localization.grabcut import grabcut
from sightline.localization.image_maps import ExplainedMaps, ImageMaps, StoredMaps
from sightline.localization.prompts import Prompt, Prompter, find_segmenter, grabcut_mask, local_maxima, segment
from sightline.localization.writing import write_masks

SPEC = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (16, 16))


def literal_maxima(saliency: Tensor, threshold: float, near: int) -> list[tuple[float, float]]:
    """Pixel by pixel: above the threshold, with nothing greater closer than `near`; of equals that are closer the first."""
    height, width = saliency.shape
    found = []
    for y in range(height):
        for x in range(width):
            window = saliency[max(0, y - near + 1) : y + near, max(0, x - near + 1) : x + near]
            if saliency[y, x] > threshold and saliency[y, x] == window.max():
                found.append((-float(saliency[y, x]), y, x))
    kept: list[tuple[int, int]] = []
    for _, y, x in sorted(found):
        if all(max(abs(y - b), abs(x - a)) >= near for b, a in kept):
            kept.append((y, x))
    return [(x + 0.5, y + 0.5) for y, x in kept]


@pytest.mark.parametrize("distance", [0.01, 0.15, 0.4, 1])
@pytest.mark.parametrize("levels", [4, 1000])  # few levels: many pixels are equal
def test_maxima_equal_the_literal_ones(distance: float, levels: int) -> None:
    for _ in range(5):
        saliency = torch.randint(0, levels + 1, (20, 27)) / levels
        expected = literal_maxima(saliency, 0.5, max(1, int(-(-distance * 20 // 1))))
        assert local_maxima(saliency, 0.5, distance).tolist() == [list(point) for point in expected]


def test_local_maxima_are_those_above_the_threshold() -> None:
    y, x = torch.arange(40)[:, None], torch.arange(60)
    peaks = [(10, 12, 1.0), (30, 45, 0.8), (30, 10, 0.5)]
    saliency = torch.stack([h * torch.exp(-((y - b) ** 2 + (x - a) ** 2) / 50) for b, a, h in peaks]).amax(0)
    assert local_maxima(saliency).tolist() == [[12.5, 10.5], [45.5, 30.5]]  # 0.5 is not above 0.5
    assert local_maxima(saliency, 0.9).tolist() == [[12.5, 10.5]]
    assert local_maxima(saliency, distance=1).tolist() == [[12.5, 10.5]]
    assert local_maxima(torch.zeros(4, 5)).shape == (0, 2)
    quantised = (saliency * 255).round() / 255  # its slopes have steps, which are no maxima
    assert len(local_maxima(quantised, 0.55)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 4, 4),), "expected a finite map"),
        ((torch.full((4, 4), torch.nan),), "expected a finite map"),
        ((torch.zeros(4, 4), 0.5, 0), "distance is 0"),
        ((torch.zeros(4, 4), 0.5, 1.5), "distance is 1.5"),
    ],
)
def test_local_maxima_invalid_arguments_raise(arguments: tuple, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        local_maxima(*arguments)


class Drawn(ImageMaps):
    """One map for every image's centre square."""

    def __init__(self, one: Tensor) -> None:
        self.one = one

    @property
    def facts(self) -> dict[str, object]:
        return {"map": self.one.sum().item()}

    def squares(self, samples: list[Sample]) -> Tensor:
        return self.one.expand(len(samples), -1, -1)


class Known(BoxDetector):
    """The same boxes in every image."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = boxes

    @property
    def facts(self) -> dict[str, object]:
        return {"source": "known"}

    def __call__(self, samples: list[Sample]) -> list[list[Box]]:
        return [list(self.boxes) for _ in samples]


def sample(height: int, width: int, index: int = 0) -> Sample:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return Sample(tv_tensors.Image(image), 0, None, index, None, f"{index}.png")


def peak(row: int, column: int) -> Tensor:
    one = torch.zeros(8, 8)
    one[row, column] = 1
    return one


def test_points_are_on_the_whole_image() -> None:
    wide, tall = sample(40, 60), sample(60, 40)
    for one, (x, y) in zip(Prompter(Drawn(peak(2, 5)))([wide, tall]), ((10, 0), (0, 10))):
        ((point,),) = [prompt.points for prompt in one]
        assert (point - torch.tensor([x + 27.5, y + 12.5])).abs().max() <= 0.5  # the centre of the map's pixel
        assert one[0].box is None
    assert Prompter(Drawn(torch.zeros(8, 8)))([wide]) == [[]]


def test_boxes_take_the_points_in_them() -> None:
    image = sample(40, 40)
    boxes = Known(Box(20, 0, 60, 30), Box(0, 20, 20, 40), Box(50, 50, 60, 60))
    first, second = Prompter(Drawn(peak(2, 5)), boxes)([image])[0]  # the third has no area in the image
    assert first.box.tolist() == [20, 0, 40, 30]
    assert len(first.points) == 1
    assert second.box.tolist() == [0, 20, 20, 40]
    assert len(second.points) == 0
    assert [len(prompt.points) for prompt in Prompter(boxes=boxes)([image])[0]] == [0, 0]
    for options, message in (({"threshold": 1}, "threshold is 1"), ({"distance": 0}, "distance is 0")):
        with pytest.raises(SightlineError, match=message):
            Prompter(Drawn(peak(2, 5)), **options)
    disc = Prompter(center=True)([image])[0][0].points
    assert (disc - 20).norm(dim=1).max() <= 4 < len(disc) / 10
    with pytest.raises(SightlineError, match="center was given with maps or boxes"):
        Prompter(boxes=boxes, center=True)
    with pytest.raises(SightlineError, match="neither was given"):
        Prompter()


def test_a_mask_is_the_union_over_the_prompts() -> None:
    image, seen = sample(10, 12), []

    def square(picture: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        seen.append((picture, points, box))
        mask = np.zeros((10, 12), dtype=bool)
        if box is not None:
            mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
        return mask

    prompts = [
        Prompt(torch.zeros(0, 2), torch.tensor([1.0, 2, 4, 5])),
        Prompt(torch.tensor([[1.5, 2.5]]), torch.tensor([3.0, 4, 8, 9])),
        Prompt(torch.tensor([[1.5, 2.5]])),
    ]
    mask = segment(image, prompts, square)
    expected = torch.zeros(10, 12, dtype=torch.bool)
    expected[2:5, 1:4] = expected[4:9, 3:8] = True
    assert mask.tolist() == expected.tolist()
    picture, points, box = seen[1]
    assert (picture.dtype, picture.shape) == (np.uint8, (10, 12, 3))
    assert (picture == image.image.permute(1, 2, 0).numpy()).all()
    assert (points.tolist(), box.tolist(), seen[2][2]) == ([[1.5, 2.5]], [3, 4, 8, 9], None)


@pytest.mark.parametrize("returned", [None, np.zeros((10, 12)), np.zeros((12, 10), dtype=bool), torch.ones(10, 12)])
def test_segmenter_results_that_are_not_masks_raise(returned: object) -> None:
    with pytest.raises(SightlineError, match=r"0\.png; expected a bool array \(10, 12\)"):
        segment(sample(10, 12), [Prompt(torch.zeros(1, 2))], lambda image, points, box: returned)


def test_a_segmenter_that_fails_is_an_error_that_names_the_image() -> None:
    def fails(image: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        raise KeyError("checkpoint")

    with pytest.raises(SightlineError, match=r"the segmenter failed at .*0\.png: KeyError: 'checkpoint'"):
        segment(sample(10, 12), [Prompt(torch.zeros(1, 2))], fails)


def objects(folder: Path, count: int = 6, root: str = ".") -> FileDataset:
    """Bright objects on dark photographs, in class folders; masks for all but the first."""
    records = []
    for i in range(count):
        image = folder / root / ("cat" if i % 2 else "dog") / f"{i}.png"
        mask = folder / "truth" / f"{i}.png"
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 60, (32, 40, 3), dtype=np.uint8)
        pixels[10:22, 14:28] += 180
        inside = np.zeros((32, 40), dtype=np.uint8)
        inside[10:22, 14:28] = 1
        Image.fromarray(pixels).save(image)
        Image.fromarray(inside).save(mask)
        records.append(Record(image, i % 2, mask if i else None))
    return FileDataset(records, ["dog", "cat"], folder / root)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(
    "prompter", [Prompter(Drawn(peak(4, 4))), Prompter(boxes=Known(Box(10, 6, 32, 26)))], ids=["points", "box"]
)
def test_grabcut_finds_plain_objects(tmp_path: Path, prompter: Prompter) -> None:
    dataset = objects(tmp_path)
    written = write_masks(dataset, tmp_path / "masks", prompter, grabcut_mask, name="grabcut", chunk_size=4)
    assert (written.images, written.masks, written.without, written.judged) == (6, 6, 0, 5)
    assert written.iou > 0.95
    mask = read(tmp_path / "masks" / "cat" / "1.png")
    assert set(np.unique(mask)) == {0, 255}
    (prompt,) = prompter([dataset[1]])[0]
    box = None if prompt.box is None else prompt.box[None]
    by_hand = grabcut(dataset[1].image[None] / 255, box, [prompt.points])[0]
    assert (mask == 255).tolist() == by_hand.bool().tolist()


def test_data_sets_read_the_masks_back(tmp_path: Path) -> None:
    dataset = objects(tmp_path, root="photos")
    prompter = Prompter(boxes=Known(Box(10, 6, 32, 26)))
    write_masks(dataset, tmp_path / "masks", prompter, grabcut_mask, name="grabcut")
    truth = objects(tmp_path, root="photos")[1].mask
    options = {"val": 0, "test": 0}
    folder = data.create_dataset("folder", root=str(tmp_path / "photos"), masks=str(tmp_path / "masks"), **options)[
        "train"
    ]
    listed = data.create_dataset("csv", path=str(tmp_path / "masks" / "masks.csv"), **options)["train"]
    for back in (folder, listed):
        assert back.has_mask.all()
        assert back.classes == ["cat", "dog"]
        i = [Path(back.path(i)).name for i in range(6)].index("1.png")
        assert (back[i].mask == truth).float().mean() > 0.95


def test_masks_of_two_splits_stay_in_them(tmp_path: Path) -> None:
    dataset, prompter, rows = objects(tmp_path, root="photos"), Prompter(boxes=Known(Box(10, 6, 32, 26))), []
    for split, part in (("train", slice(4)), ("test", slice(4, 6))):
        write_masks(dataset, tmp_path / split, prompter, grabcut_mask, name="grabcut", split=split)
        header, *lines = (tmp_path / split / "masks.csv").read_text().splitlines()
        for path, label, mask, own in (line.split(",") for line in lines[part]):
            rows.append(f"{path.removeprefix('../')},{label},{split}/{mask},{own}")
    (tmp_path / "both.csv").write_text("\n".join([header, *rows]))
    both = data.create_dataset("csv", path=str(tmp_path / "both.csv"), val=0)
    assert {name: len(images) for name, images in both.items()} == {"train": 4, "test": 2}
    assert both["train"].has_mask.all()


class Bright(Drawn):
    """A point in the images of one class only."""

    def squares(self, samples: list[Sample]) -> Tensor:
        return torch.stack([self.one * s.label for s in samples])


def test_an_image_without_a_prompt_has_no_mask_and_is_counted(tmp_path: Path) -> None:
    dataset = objects(tmp_path)
    written = write_masks(dataset, tmp_path / "masks", Prompter(Bright(peak(4, 4))), grabcut_mask, name="grabcut")
    assert (written.masks, written.without, written.judged) == (3, 3, 3)
    assert not (tmp_path / "masks" / "dog").exists()
    with (tmp_path / "masks" / "masks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == ["", "cat/1.png", "", "cat/3.png", "", "cat/5.png"]
    assert rows[1] == {"path": "../cat/1.png", "label": "cat", "mask": "cat/1.png"}
    nothing = Prompter(Drawn(torch.zeros(8, 8)))
    with pytest.raises(SightlineError, match="no prompt for any of the 6 images"):
        write_masks(dataset, tmp_path / "none", nothing, grabcut_mask, name="grabcut")


def test_an_interrupted_pass_resumes(tmp_path: Path) -> None:
    dataset, prompter, calls = objects(tmp_path), Prompter(boxes=Known(Box(10, 6, 32, 26))), []

    def cut(image: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(image)
        return image[..., 0] > 100

    with pytest.raises(KeyboardInterrupt):
        write_masks(dataset, tmp_path / "masks", prompter, cut, name="own", chunk_size=2)
    entries = (tmp_path / "masks" / "journal").read_text().splitlines()
    assert len(entries) == 3  # what it is of, and the two images of the first step
    calls[:] = [0] * 10
    written = write_masks(dataset, tmp_path / "masks", prompter, cut, name="own", chunk_size=2)
    assert len(calls) == 14
    assert (written.masks, written.iou) == (6, 1)
    assert write_masks(dataset, tmp_path / "masks", prompter, cut, name="own") == written
    assert len(calls) == 14
    with pytest.raises(SightlineError, match="belongs to other work: segmenter is 'own' there and 'other' here"):
        write_masks(dataset, tmp_path / "masks", prompter, cut, name="other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(SightlineError, match="exists and was not written"):
        write_masks(dataset, tmp_path / "full", prompter, cut, name="own")


def test_images_that_would_share_a_mask_are_rejected(tmp_path: Path) -> None:
    records = [Record(tmp_path / name, i) for i, name in enumerate(("a.png", "a.jpg"))]
    for record in records:
        Image.new("RGB", (8, 8)).save(record.path)
    dataset = FileDataset(records, ["a", "b"], tmp_path)
    with pytest.raises(SightlineError, match=r"a\.png and .*a\.jpg would have the same mask file, a\.png"):
        write_masks(dataset, tmp_path / "m", Prompter(boxes=Known(Box(0, 0, 4, 4))), grabcut_mask, name="grabcut")


def test_images_that_are_no_files_have_their_index(tmp_path: Path) -> None:
    dataset = InMemory([sample(16, 20, i) for i in range(2)], ["a", "b"], 0)
    write_masks(dataset, tmp_path / "m", Prompter(boxes=Known(Box(2, 2, 9, 9))), grabcut_mask, name="grabcut")
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["000000.png", "000001.png", "journal"]


def test_maps_of_a_model_and_of_a_store_agree(tmp_path: Path) -> None:
    dataset, model = objects(tmp_path), TinyCNN().eval()
    store = sl.maps.compute_maps(
        model, dataset, tmp_path / "maps", "eigencam", layer="features.3", input_spec=SPEC, dtype="float16"
    )
    samples = [dataset[i] for i in (3, 0)]
    explained = ExplainedMaps(model, SPEC, "eigencam", "features.3")(samples)
    for one, other, index in zip(explained, StoredMaps(tmp_path / "maps", dataset)(samples), (3, 0)):
        assert one.shape == (32, 40)
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
        torch.testing.assert_close(other, on_image(store.read([index])[0], (32, 40)).as_subclass(Tensor)[0])
    with pytest.raises(SightlineError, match="are of another data set"):
        StoredMaps(tmp_path / "maps", objects(tmp_path / "other", 4))
    with pytest.raises(SightlineError, match="not a store of maps"):
        StoredMaps(tmp_path / "nowhere", dataset)
    assert json.dumps(ExplainedMaps(model, SPEC, layer="features.3").facts)


def test_find_segmenter_imports_functions_and_rejects_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_segmenter.py").write_text("def cut(image, points, box):\n    return 1\nnumber = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_segmenter("grabcut") is grabcut_mask
    assert find_segmenter("my_segmenter:cut")(None, None, None) == 1
    for name, message in (
        ("sam", "expected 'grabcut' or 'package.module:function'"),
        ("my_segmenter:cuts", "cannot be imported"),
        ("nowhere_at_all:cut", "cannot be imported"),
        ("my_segmenter:number", "is a int; expected a function"),
    ):
        with pytest.raises(SightlineError, match=message):
            find_segmenter(name)
    sys.modules.pop("my_segmenter")
