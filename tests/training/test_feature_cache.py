import pytest
import torch

from sightline.errors import SightlineError
from sightline.finetuning.trunk import Trunk
from sightline.network.head import head_parameters
from sightline.network.input_spec import to_inputs
from sightline.training.build import build
from sightline.training.feature_cache import cached_activations
from tiny import recipe

GUIDE = [{"name": "random_background", "seed": 3}, {"name": "l1"}]


def parts_of(**changes):
    return build(recipe(**({"model": "sightline/small_cnn", "guide": GUIDE} | changes)))


def trunk_of(parts):
    head = set(head_parameters(parts.model))
    for parameter in parts.model.parameters():
        parameter.requires_grad_(parameter in head)
    parts.model.eval()
    return Trunk(parts.model, parts.objectives[0].layer, torch.rand(3, 3, 32, 32))


def test_a_draw_is_what_the_trunk_makes_of_that_epoch():
    parts = parts_of()
    objective, loader, trunk = parts.objectives[0], parts.train_loader(0, 1), trunk_of(parts)
    rows = cached_activations(objective, loader, trunk).draw(2)
    objective.train()
    parts.model.eval()
    objective.epoch = 2
    loader.sampler.set_epoch(2)
    start = 0
    for batch in loader:
        changed = objective.transform(batch)
        here = rows.rows(torch.arange(start, start + len(batch)))
        assert torch.equal(here.indices, batch.indices)
        assert torch.equal(here.masks, changed.masks)
        assert not torch.equal(changed.images, batch.images)  # the guide acted
        assert torch.allclose(here.features[0], trunk(to_inputs(changed.images, objective.input_spec))[0], atol=1e-6)
        assert here.images.shape == batch.images.shape
        assert here.images.isnan().all()
        start += len(batch)
    assert start == len(rows) == 20


def test_a_store_leaves_epochs_and_random_numbers_as_they_are():
    parts = parts_of()
    objective, loader = parts.objectives[0], parts.train_loader(0, 1)
    store = cached_activations(objective, loader, trunk_of(parts))
    objective.eval()
    before = torch.get_rng_state()
    store.draw(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (objective.epoch, loader.sampler.epoch, objective.training) == (0, 0, False)


def test_images_that_an_epoch_leaves_out_come_last():
    parts = parts_of(drop_last=True)
    store = cached_activations(parts.objectives[0], parts.train_loader(0, 1), trunk_of(parts), complete=True)
    indices = store.draw(0).indices.tolist()
    assert sorted(indices) == list(range(20))
    assert indices[16:] == sorted(indices[16:])


def test_draws_on_disk_are_read_again_and_distinguished(tmp_path):
    parts = parts_of()
    objective, loader, trunk = parts.objectives[0], parts.train_loader(0, 1), trunk_of(parts)
    first = cached_activations(objective, loader, trunk, folder=tmp_path).draw(1)
    (file,) = tmp_path.glob("*/draw-1.safetensors")
    written = file.stat().st_mtime_ns
    again = cached_activations(objective, loader, trunk, folder=tmp_path).draw(1)
    assert file.stat().st_mtime_ns == written
    assert again.tensors.keys() == first.tensors.keys()
    assert all(torch.equal(again.tensors[name], each) for name, each in first.tensors.items())
    assert again.features[0].stride() == first.features[0].stride()
    assert again.images.shape == first.images.shape

    others = [
        parts_of(seed=1),
        parts_of(guide=[{"name": "random_background", "seed": 4}, {"name": "l1"}]),
        parts_of(augment={"flip": False}),
        parts_of(data={"name": "squares", "seed": 5}),
    ]
    for number, other in enumerate(others, start=2):
        store = cached_activations(other.objectives[0], other.train_loader(0, 1), trunk_of(other), folder=tmp_path)
        store.draw(1)
        assert len(list(tmp_path.iterdir())) == number
    same = parts_of(guide=[{"name": "random_background", "seed": 3}, {"name": "l1", "weight": 7.0}])
    cached_activations(same.objectives[0], same.train_loader(0, 1), trunk_of(same), folder=tmp_path).draw(1)
    assert len(list(tmp_path.iterdir())) == 5  # the weight of a loss changes no image

    file.write_bytes(b"damaged")
    with pytest.raises(SightlineError, match=r"cannot read.*remove"):
        cached_activations(objective, loader, trunk, folder=tmp_path).draw(1)
