"""Box sources, what becomes of their boxes on disk, and CorLoc."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models, tv_tensors
from torchvision.ops import box_iou

import sightline as sl
from networks import TinyCNN
from sightline import SightlineError
from sightline.data.dataset import InMemory, Sample
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.transforms import eval_transform
from sightline.localization.detectors import (
    BOX_DETECTORS,
    AnnotatedBoxes,
    Box,
    BoxDetector,
    LostBoxes,
    SaliencyBoxes,
    TorchvisionBoxes,
)
from sightline.localization.lost import lost
from sightline.localization.writing import write_boxes
from sightline.metrics import Observation
from sightline.metrics.corloc import CorLoc, corloc
from sightline.regions.boxes import peak_boxes

SPEC = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (16, 16))


def photographs(folder: Path, count: int = 7, sizes: tuple[tuple[int, int], ...] = ((40, 30), (30, 50))) -> FileDataset:
    """Noise of several sizes, a mask with a known box for all but the first."""
    records = []
    for i in range(count):
        image, mask = folder / f"images/{'cat' if i % 2 else 'dog'}/{i}.png", folder / f"truth/{i}.png"
        size = sizes[i % len(sizes)]
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 90).convert("RGB").save(image)
        picture = Image.new("L", size)
        picture.paste(1, (5, 6, 25, 26))
        picture.save(mask)
        records.append(Record(image, i % 2, mask if i else None))
    return FileDataset(records, ["dog", "cat"], folder)


class Known(BoxDetector):
    """The same boxes in every image, and a count of the images that it was asked about."""

    def __init__(self, *boxes: Box, fails_after: int = 1000) -> None:
        self.boxes, self.asked, self.fails_after = boxes, [], fails_after

    @property
    def facts(self) -> dict[str, object]:
        return {"source": "known", "boxes": [box.xyxy for box in self.boxes]}

    def __call__(self, samples: list[Sample]) -> list[list[Box]]:
        if len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += [sample.index for sample in samples]
        return [list(self.boxes) for _ in samples]


def sample(image: Tensor, path: str = "x.png", index: int = 0) -> Sample:
    return Sample(tv_tensors.Image(image), 0, None, index, None, path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_lost_boxes_of_images_of_several_sizes_equal_those_of_each_image() -> None:
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((40, 30), (33, 50), (40, 30))]
    found = LostBoxes(model, SPEC, size=24)([sample(image) for image in images])
    for image, boxes in zip(images, found):
        expected = lost(model, image[None] / 255, SPEC, size=24)[0]
        torch.testing.assert_close(torch.tensor(boxes[0].xyxy), expected)
        assert boxes[0].score is None


def test_saliency_boxes_are_those_of_the_map_on_the_whole_image() -> None:
    model, image = TinyCNN().eval(), torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    source = SaliencyBoxes(model, SPEC, "eigencam", "features.3", threshold=0.3)
    (box,) = source([sample(image)])[0]
    square = eval_transform(16)(tv_tensors.Image(image)).as_subclass(Tensor)
    saliency = sl.create_explainer("eigencam")(model, square[None], None, "features.3", SPEC)
    whole = torch.zeros(40, 64)  # the centre square is columns 12 to 51
    whole[:, 12:52] = torch.nn.functional.interpolate(saliency[None], (40, 40), mode="bilinear")[0, 0]
    assert list(box.xyxy) == peak_boxes(whole[None], 0.3)[0][0].tolist()
    assert 12 <= box.x1 < box.x2 <= 52
    with pytest.raises(SightlineError, match="threshold is 1"):
        SaliencyBoxes(model, SPEC, threshold=1)


def test_a_map_without_contrast_has_no_box() -> None:
    model = TinyCNN().eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert SaliencyBoxes(model, SPEC, layer="features.3")([sample(torch.zeros(3, 20, 20, dtype=torch.uint8))]) == [[]]


def test_torchvision_boxes_keep_the_highest_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    save_file(models.get_model(f"{name}", weights=None, weights_backbone=None).state_dict(), tmp_path / "w.safetensors")
    source = TorchvisionBoxes(name, str(tmp_path / "w.safetensors"))
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    some = {"boxes": boxes, "scores": torch.tensor([0.2, 0.9]), "labels": torch.tensor([1, 18])}
    nothing = {key: value[:0] for key, value in some.items()}
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8)
    monkeypatch.setattr(source.detector, "forward", lambda images: [some, nothing])
    (best,), none = source([sample(image), sample(image)])
    assert (best.xyxy, best.label, none) == ((5, 6, 7, 8), "dog", [])
    assert best.score == pytest.approx(0.9)
    monkeypatch.undo()
    found = source([sample(image)])[0]
    with torch.inference_mode():
        expected = source.detector([image / 255])[0]
    assert [box.score for box in found] == expected["scores"][: len(found)].tolist()
    with pytest.raises(SightlineError, match="did you mean 'ssd300_vgg16'"):
        TorchvisionBoxes("ssd300_vgg")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_boxes_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    data = photographs(tmp_path / "data")
    known = Known(Box(1.5, 2, 9, 8.25, 0.75, "cat"), Box(0, 0, 4, 4, None, "dog, or so"))
    written = write_boxes(data, tmp_path / "out" / f"boxes{suffix}", known, chunk_size=3)
    assert (written.images, written.boxes, written.without, written.clipped, written.dropped) == (7, 14, 0, 0, 0)
    back = AnnotatedBoxes(tmp_path / "out" / f"boxes{suffix}")
    assert back([data[i] for i in range(7)]) == [list(known.boxes)] * 7


def test_coco_as_others_read_it(tmp_path: Path) -> None:
    data = photographs(tmp_path, 2)
    write_boxes(data, tmp_path / "boxes.json", Known(Box(1, 2, 9, 8)))
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert content["images"][1] == {"id": 2, "file_name": "images/cat/1.png", "width": 30, "height": 50}
    assert content["annotations"][1] == {
        "id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 8, 6], "area": 48, "iscrowd": 0,
    }  # fmt: skip
    assert content["categories"] == [{"id": 1, "name": "object"}]


def test_boxes_beyond_the_image_are_cut_or_left_out_and_counted(tmp_path: Path) -> None:
    data = photographs(tmp_path, 2, ((40, 30),))
    inside, beyond = Box(5, 6, 25, 26), Box(-3, 20, 50, 31)
    without_area = [Box(5, 5, 5, 9), Box(9, 9, 3, 12), Box(40, 0, 50, 10), Box(-9, -9, 0, 0)]
    written = write_boxes(data, tmp_path / "boxes.csv", Known(inside, beyond, *without_area))
    assert (written.boxes, written.clipped, written.dropped, written.without) == (4, 2, 8, 0)
    rows = [[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in rows_of(tmp_path / "boxes.csv")]
    assert rows[:2] == [["5", "6", "25", "26"], ["0", "20", "40", "30"]]
    with pytest.raises(SightlineError, match="none of the 2 images has a box"):
        write_boxes(data, tmp_path / "none.csv", Known(*without_area))
    assert not (tmp_path / "none.csv").exists()


def test_an_interrupted_pass_resumes(tmp_path: Path) -> None:
    data, box, path = photographs(tmp_path), Box(1, 2, 9, 8), tmp_path / "boxes.csv"
    first = Known(box, fails_after=4)
    with pytest.raises(KeyboardInterrupt):
        write_boxes(data, path, first, chunk_size=2)
    assert first.asked == [0, 1, 2, 3]
    assert not path.exists()
    with (tmp_path / "boxes.csv.journal").open("a") as file:
        file.write('{"size": [30, 4')  # a line that a kill cut short
    again = Known(box)
    written = write_boxes(data, path, again, chunk_size=2)
    assert again.asked == [4, 5, 6]
    assert written.images == 7
    write_boxes(data, tmp_path / "whole.csv", Known(box))
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    idle = Known(box)
    assert write_boxes(data, path, idle) == written
    assert idle.asked == []


def test_boxes_written_by_other_work_raise(tmp_path: Path) -> None:
    data, path = photographs(tmp_path), tmp_path / "boxes.csv"
    write_boxes(data, path, Known(Box(1, 2, 9, 8)))
    with pytest.raises(
        SightlineError, match=r"belongs to other work: boxes is \[\[1, 2, 9, 8\]\] there and \[\[1, 2, 9, 9\]\]"
    ):
        write_boxes(data, path, Known(Box(1, 2, 9, 9)))
    with pytest.raises(SightlineError, match="boxes of is"):
        write_boxes(photographs(tmp_path, 5), path, Known(Box(1, 2, 9, 8)))
    (tmp_path / "mine.csv").write_text("kept")
    with pytest.raises(SightlineError, match="exists already"):
        write_boxes(data, tmp_path / "mine.csv", Known(Box(1, 2, 9, 8)))
    with pytest.raises(SightlineError, match=r"suffix '\.txt'; expected \.csv or \.json"):
        write_boxes(data, tmp_path / "boxes.txt", Known())
    (tmp_path / "images/dog/0.png").write_bytes(b"no picture")
    with pytest.raises(SightlineError, match=r"cannot read the image .*dog/0\.png"):
        write_boxes(data, tmp_path / "other.csv", Known(Box(1, 2, 9, 8)))
    with pytest.raises(SightlineError, match="files are missing"):
        FileDataset([Record(tmp_path / "gone.png", 0)], ["dog", "cat"], tmp_path)


def test_images_that_are_no_files(tmp_path: Path) -> None:
    data = InMemory(
        [sample(torch.zeros(3, 20, 20, dtype=torch.uint8), f"drawn {i}", i) for i in range(3)], ["a", "b"], 0
    )
    write_boxes(data, tmp_path / "boxes.csv", Known(Box(1, 2, 9, 8)))
    assert [row["path"] for row in rows_of(tmp_path / "boxes.csv")] == ["drawn 0", "drawn 1", "drawn 2"]


def test_corloc_counts_boxes_of_half_overlap(tmp_path: Path) -> None:
    found = torch.tensor([[0.0, 0, 2, 4], [0, 0, 2, 4], [0, 0, 2, 4], [0, 0, 0, 0], [0, 0, 2, 4]])
    boxes = torch.tensor([[0.0, 0, 2, 8], [0, 0, 2, 8.1], [0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 9, 9]])[:, None]
    assert corloc(found, boxes).tolist() == [1, 0, 1, 0, 0]  # IoU 1/2, less, 1/2, no area, no area
    assert corloc(found, boxes, iou=0.51).sum() == 0
    both = boxes[[1, 2]].transpose(0, 1)
    assert corloc(found[:1], both).item() == 1  # any of them
    assert corloc(found[:1], both, torch.tensor([[True, False]])).item() == 0
    assert corloc(found[:1], both, torch.tensor([[False, False]])).isnan().all()
    metric = CorLoc()
    metric.update(found[:2], boxes[:2])
    metric.update(found[2:], boxes[2:], torch.tensor([[True], [True], [False]]))
    assert metric.compute() == 0.5
    assert (metric.n, metric.skipped) == (4, 1)
    for bad in ((found[:, :3], boxes), (found, boxes[:2]), (found, boxes[:, 0])):
        with pytest.raises(SightlineError, match="xyxy in pixels"):
            corloc(*bad)
    with pytest.raises(SightlineError, match="iou is 0"):
        corloc(found, boxes, iou=0)


def test_corloc_is_the_share_of_random_boxes_above_one_half() -> None:
    corners = torch.rand(50, 2, 2).sort(1).values.flatten(1), torch.rand(50, 3, 2, 2).sort(2).values.flatten(2)
    expected = [box_iou(one[None], some).max() >= 0.5 for one, some in zip(*corners)]
    assert corloc(*corners).bool().tolist() == expected
    assert 0 < sum(expected) < 50


def test_corloc_takes_maps_and_masks() -> None:
    maps, masks = torch.zeros(3, 10, 10), torch.zeros(3, 10, 10, dtype=torch.uint8)
    maps[:, 2:6, 2:6] = 0.8
    masks[0, 2:6, 2:6] = masks[1, 5:9, 5:9] = 1
    assert CorLoc().compute_per_image(Observation(maps=maps, masks=masks)).nan_to_num(9).tolist() == [1, 0, 9]
    assert CorLoc(threshold=0.8).compute_per_image(Observation(maps=maps, masks=masks))[0] == 0  # strictly above
    boxes = torch.tensor([[[2.0, 2, 6, 6]]]).repeat(3, 1, 1)
    assert CorLoc().compute_per_image(Observation(maps=maps, boxes=boxes)).tolist() == [1, 1, 1]


def test_corloc_of_a_pass(tmp_path: Path) -> None:
    data = photographs(tmp_path)  # six masks, around (5, 6, 25, 26)
    written = write_boxes(data, tmp_path / "a.csv", Known(Box(5, 6, 25, 27)))
    assert (written.corloc, written.judged) == (1, 6)
    assert write_boxes(data, tmp_path / "b.csv", Known(Box(5, 6, 10, 26))).corloc == 0
    bare = FileDataset([Record(r.path, r.label) for r in data.records], data.classes, data.root)
    assert write_boxes(bare, tmp_path / "c.csv", Known(Box(5, 6, 25, 26))).corloc is None


def test_detectors_are_known_by_name() -> None:
    assert {"lost", "saliency", "torchvision", "annotations"} <= set(BOX_DETECTORS.names())
    with pytest.raises(SightlineError, match="unknown box detector 'lots'; did you mean 'lost'"):
        BOX_DETECTORS.create("lots")
    with pytest.raises(SightlineError, match="nothing at nowhere"):
        BOX_DETECTORS.create("annotations", file="nowhere")
