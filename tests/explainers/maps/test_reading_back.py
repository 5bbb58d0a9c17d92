"""Stored maps go with their images through crops and flips."""

import shutil
from dataclasses import replace

import pytest
import torch
from drawn import SPEC, Pictures
from torchvision import tv_tensors

import sightline as sl
from sightline.data import Sample
from sightline.data.loader import create_loader, on_image
from sightline.data.map_store import MapStore
from sightline.errors import SightlineError
from sightline.explainers.maps import compute_maps


class Ramps(Pictures):
    """Square pictures whose red is a ramp from left to right and from top to bottom, unlike anywhere else."""

    def load(self, index: int) -> Sample:
        ramp = (torch.arange(32) * 2)[None] + (torch.arange(32) * 5)[:, None]
        pixels = ramp.to(torch.uint8).expand(3, -1, -1).clone()
        return replace(super().load(index), image=tv_tensors.Image(pixels))


def test_maps_move_with_their_images(tmp_path) -> None:
    data = Ramps(6)
    store = MapStore.create(tmp_path / "maps", {"data": data.fingerprint}, (6, 32, 32), "float16", 3)
    red = data[0].image[0].float() / 255
    store.write(0, red.expand(6, -1, -1))  # each map is its image's red, so that wherever it goes, it must equal it
    for epoch in range(2):
        batches = create_loader(data, size=16, batch_size=3, train=True, seed=epoch, augment={"crop": 0.3}, maps=store)
        for batch in batches:
            assert batch.maps.shape == (3, 16, 16)
            # Images are rounded to 1 / 255 when they are resampled, and maps are not.
            torch.testing.assert_close(batch.maps, batch.images[:, 0], rtol=0, atol=1 / 255)
            assert batch.maps.flatten(1).std(1).min() > 0.02


def test_colours_change_and_maps_do_not(tmp_path, model, pictures) -> None:
    store = compute_maps(model, pictures, tmp_path / "maps", layer="features", input_spec=SPEC)

    def batches(jitter: float, num_workers: int = 0) -> list[sl.Batch]:
        augment = {"crop": 0.3, "jitter": jitter}
        return list(
            create_loader(
                pictures, size=16, batch_size=5, train=True, augment=augment, maps=store, num_workers=num_workers
            )
        )

    for plain, changed in zip(batches(0), batches(0.9), strict=True):
        assert (plain.images - changed.images).abs().max() > 0.1
        torch.testing.assert_close(plain.maps, changed.maps, rtol=0, atol=0)
    for alone, workers in zip(batches(0), batches(0, num_workers=2), strict=True):
        torch.testing.assert_close(alone.maps, workers.maps, rtol=0, atol=0)


def test_kept_maps_are_the_stored_ones_without_the_disk(tmp_path, pictures) -> None:
    shape = (len(pictures), 16, 16)
    store = MapStore.create(tmp_path / "maps", {"data": pictures.fingerprint}, shape, "float16", 3)
    store.write(0, torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    stored, some = store.read(range(len(pictures))), [4, 0, 4]
    create_loader(pictures, size=16, batch_size=5, train=True, cache=True, maps=store)
    shutil.rmtree(tmp_path / "maps" / "maps")
    torch.testing.assert_close(store.read(range(len(pictures))), stored, rtol=0, atol=0)
    torch.testing.assert_close(store.read(some), stored[some], rtol=0, atol=0)


def test_maps_that_are_written_later_replace_kept_ones(tmp_path) -> None:
    store = MapStore.create(tmp_path / "maps", {}, (2, 4, 4), "float16", 1)
    store.write(0, torch.zeros(2, 4, 4))
    store.keep_in_memory()
    store.write(1, torch.ones(1, 4, 4))
    assert store.read([0, 1]).flatten(1).mean(1).tolist() == [0, 1]


def test_a_map_is_on_the_centre_square() -> None:
    whole = on_image(torch.ones(4, 4), (6, 10))[0]
    assert whole.shape == (6, 10)
    assert whole[:, :2].sum() == 0 == whole[:, 8:].sum()
    assert whole[:, 2:8].min() == 1
    upright = on_image(torch.ones(2, 2), (7, 4))
    assert upright.sum() == 16


def test_evaluation_reads_the_map_as_it_was_stored(tmp_path, model, pictures) -> None:
    store = compute_maps(model, pictures, tmp_path / "maps", "gaussian", input_spec=SPEC)
    batch = next(iter(create_loader(pictures, size=16, batch_size=10, train=False, maps=store)))
    off = (batch.maps - store.read(range(10))).abs().amax((1, 2))
    assert (
        off[2::3].max() < 0.03
    )  # square pictures: resampled to the image and back, which flattens a small Gaussian a little
    assert off.max() < 0.11  # others: the centre square is cut at a whole pixel, so the map lies up to half a pixel off


def test_maps_of_another_data_set_are_rejected(tmp_path, model, pictures) -> None:
    store = compute_maps(model, pictures, tmp_path / "maps", layer="features", input_spec=SPEC)
    with pytest.raises(SightlineError, match="are of another data set"):
        create_loader(Pictures(identity="other"), size=16, batch_size=2, train=True, maps=store)


def test_a_recipe_reads_them(tmp_path) -> None:
    recipe = {
        "name": "digits", "data": {"name": "digits", "copies": 1, "size": 32}, "image_size": 32, "model": "sightline/lenet5",
        "stages": [{"epochs": 1, "lr": 1e-3}], "batch_size": 64,
    }  # fmt: skip
    data = sl.data.create_dataset("digits", copies=1, size=32)
    network, spec = sl.load_model("sightline/lenet5", classes=len(data.classes), size=32)
    compute_maps(network.eval(), data["train"], tmp_path / "maps", input_spec=spec, chunk_size=256)
    from sightline.training.build import build

    parts = build(sl.Recipe(**recipe, maps=str(tmp_path / "maps")))
    batch = next(iter(parts.train_loader(0, 1)))
    assert batch.maps is not None
    assert batch.maps.shape == (64, 32, 32)
    with pytest.raises(SightlineError, match="maps: nothing at"):
        build(sl.Recipe(**recipe, maps=str(tmp_path / "elsewhere")))
