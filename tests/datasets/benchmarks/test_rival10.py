"""RIVAL10 in a small copy of its official layout."""

import base64
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import write_image
from sightline import data
from sightline.datasets.benchmarks.rival10 import CLASSES
from sightline.errors import SightlineError

WNIDS = [wnid for wnids in CLASSES.values() for wnid in wnids]


def picture(values: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_photograph(folder: Path, name: str, colour: tuple[int, int, int] = (10, 20, 30)) -> Path:
    """A photograph of 32 x 24 with its files: the object is its left half, the attributes are its upper half."""
    whole, attributes = np.zeros((24, 32, 3)), np.zeros((24, 32, 3))
    whole[:, :16] = [255, 255, 255]
    attributes[:12] = 255
    file = write_image(folder / f"{name}.JPEG", colour)
    (folder / f"{name}_merged_mask.JPEG").write_bytes(picture(attributes, "JPEG"))
    known = {"ears": base64.b64encode(picture(attributes)).decode(), "entire-object": base64.b64encode(picture(whole))}
    (folder / f"{name}_attr_dict.pkl").write_bytes(pickle.dumps(known))
    np.save(folder / f"{name}_attr_labels.npy", np.zeros((2, 18)))
    return file


@pytest.fixture
def rival10_folder(tmp_path: Path) -> Path:
    """Every ImageNet class: three photographs to train on, and one to test."""
    for wnid in WNIDS:
        for i in range(3):
            write_photograph(tmp_path / "RIVAL10/train/ordinary", f"{wnid}_{i}")
        write_photograph(tmp_path / "RIVAL10/test/ordinary", f"{wnid}_9")
    write_photograph(tmp_path / "RIVAL10/train/superimposed", f"{WNIDS[0]}_0")
    return tmp_path


def test_rival10_gives_classes_splits_and_masks_of_whole_objects(rival10_folder: Path) -> None:
    splits = data.create_dataset("rival10", root=str(rival10_folder), val=1)
    assert splits.classes == ["truck", "car", "plane", "ship", "cat", "dog", "equine", "deer", "frog", "bird"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 50, "val": 10, "test": 20}
    for split in splits.values():
        for i in range(len(split)):
            wnid = Path(split.path(i)).name.partition("_")[0]
            assert split.labels[i] == WNIDS.index(wnid) // 2
    sample = splits["test"][0]
    assert sample.image.shape == (3, 24, 32)
    expected = torch.zeros(24, 32, dtype=torch.uint8)
    expected[:, :16] = 1
    assert torch.equal(sample.mask, expected)
    inside = data.create_dataset("rival10", root=str(rival10_folder / "RIVAL10"), val=1)
    assert {n: s.fingerprint for n, s in inside.items()} == {n: s.fingerprint for n, s in splits.items()}


def test_masks_attributes_gives_the_union_of_the_attributes(rival10_folder: Path) -> None:
    splits = data.create_dataset("rival10", root=str(rival10_folder), masks="attributes", val=0)
    assert set(splits) == {"train", "test"}
    mask = splits["test"][0].mask
    assert mask[:11].eq(1).all()
    assert mask[13:].eq(0).all()
    whole = data.create_dataset("rival10", root=str(rival10_folder), val=0)
    assert whole["test"].fingerprint != splits["test"].fingerprint


def test_a_mask_of_another_size_is_scaled_and_noise_is_not_an_object(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for wnid in ("n02123394", "n02099712"):
            write_photograph(tmp_path / part / "ordinary", f"{wnid}_0")
    stored = np.full((48, 64, 4), 40)  # as a JPEG's noise, or a faint brush
    stored[24:, :, 3] = 255
    stored = {"entire-object": base64.b64encode(picture(stored)).decode()}
    (tmp_path / "test/ordinary/n02123394_0_attr_dict.pkl").write_bytes(pickle.dumps(stored))
    (tmp_path / "test/ordinary/n02099712_0_attr_dict.pkl").write_bytes(pickle.dumps({"ears": ""}))
    splits = data.create_dataset("rival10", root=str(tmp_path), val=0)
    assert splits.classes == ["cat", "dog"]
    masks = {splits.classes[s.label]: s.mask for s in (splits["test"][0], splits["test"][1])}
    assert masks["cat"][12:].eq(1).all()
    assert masks["cat"][:12].eq(0).all()
    assert masks["dog"].eq(255).all()  # nothing is known of the whole object


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize("content", [Evil(), {"entire-object": Evil()}, ["entire-object"], {"entire-object": "!!!!"}])
def test_a_pickle_runs_no_code(rival10_folder: Path, content: object) -> None:
    file = rival10_folder / f"RIVAL10/test/ordinary/{WNIDS[0]}_9_attr_dict.pkl"
    file.write_bytes(pickle.dumps(content))
    test = data.create_dataset("rival10", root=str(rival10_folder))["test"]
    place = next(i for i in range(20) if WNIDS[0] in test.path(i))
    with pytest.raises(SightlineError, match=f"cannot read the mask .*{WNIDS[0]}_9_attr_dict"):
        test[place]
    file.write_bytes(b"\x80\x04no pickle")
    with pytest.raises(SightlineError, match="cannot read the mask"):
        test[place]
    kept = data.create_dataset("rival10", root=str(rival10_folder), skip_corrupt=True)
    assert len(kept["test"]) == 19
    assert len(kept["test"].skipped) == 1


def test_rfs_on_rival10_is_between_minus_one_and_one(rival10_folder: Path) -> None:
    from sightline.data.loader import create_loader
    from sightline.metrics import RFS

    test = data.create_dataset("rival10", root=str(rival10_folder))["test"]
    (batch,) = create_loader(test, size=24, batch_size=20, train=False)
    metric = RFS(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 10)), levels=[0.1])
    metric.update(batch.images, batch.labels, batch.masks, batch.has_mask)
    assert -1 <= metric.compute() <= 1
    assert metric.n == 20


def test_rival10_invalid_options_and_layouts_raise(rival10_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="expected 'object' or 'attributes'"):
        data.create_dataset("rival10", root=str(rival10_folder), masks="objects")
    with pytest.raises(SightlineError, match=r"there is no .*train/ordinary; expected RIVAL10's official layout"):
        data.create_dataset("rival10", root=str(rival10_folder / "RIVAL10/train"))
    write_photograph(rival10_folder / "RIVAL10/test/ordinary", "n00000001_0")
    with pytest.raises(SightlineError, match="begins with 'n00000001', which is not an ImageNet class of RIVAL10's"):
        data.create_dataset("rival10", root=str(rival10_folder))
