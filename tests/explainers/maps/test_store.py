"""Maps of a data set on disk: what is read is what was explained, also after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from drawn import SPEC, Pictures

import sightline as sl
from networks import TinyCNN
from sightline.data.loader import create_loader
from sightline.data.map_store import MapStore
from sightline.errors import RunFailedError, SightlineError
from sightline.explainers.cam import CAM
from sightline.explainers.maps import compute_maps


def expected(model: TinyCNN, pictures: Pictures, **options: object) -> torch.Tensor:
    batch = next(iter(create_loader(pictures, size=16, batch_size=len(pictures), train=False)))
    return sl.explain(model, batch.images, layer="features", input_spec=SPEC, **options)


class Other(TinyCNN):
    """The same weights by another name."""


@pytest.mark.parametrize(("dtype", "error"), [("uint8", 0.5 / 255 + 1e-6), ("float16", 5e-4)])
def test_maps_read_from_a_store_equal_the_explained_ones(tmp_path, model, pictures, dtype, error) -> None:
    store = compute_maps(
        model, pictures, tmp_path / "maps", layer="features", input_spec=SPEC, dtype=dtype, chunk_size=4
    )
    torch.testing.assert_close(store.read(range(10)), expected(model, pictures), rtol=0, atol=error)
    again = MapStore(tmp_path / "maps")
    torch.testing.assert_close(again.read([7, 0, 7]), store.read(range(10))[[7, 0, 7]], rtol=0, atol=0)
    assert again.metadata["method"] == "gradcam"
    assert len(again) == 10
    assert again.finished.all()


def test_the_label_can_be_explained_and_the_size_chosen(tmp_path, model, pictures) -> None:
    store = compute_maps(
        model,
        pictures,
        tmp_path / "maps",
        "hirescam",
        layer="features",
        input_spec=SPEC,
        targets="label",
        map_size=(8, 8),
    )
    whole = expected(model, pictures, method="hirescam", targets=pictures.labels)
    small = sl.explainers.resize_maps(whole, (8, 8))
    torch.testing.assert_close(store.read(range(10)), small, rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "layercam"}, "method is 'gradcam' there and 'layercam' here"),
        ({"options": {"smooth": "eigen"}}, "options is"),
        ({"layer": "features.0"}, "layer is 'features' there"),
        ({"targets": "label"}, "targets is 'predicted' there"),
        ({"dtype": "float16"}, "dtype is 'uint8' there"),
        ({"map_size": (4, 4)}, "shape is"),
        ({"dataset": Pictures(identity="other")}, "data is"),
        ({"model": TinyCNN(width=4)}, "model is"),
        ({"model": Other()}, "architecture is 'TinyCNN' there and 'Other' here"),
        ({"layer": ["features", "features.0"]}, "layer is 'features' there and 'features, features.0' here"),
        ({"layer": sl.Layer("features", "tokens", 1)}, r"and 'features \(tokens, prefix 1\)' here"),
    ],
)
def test_a_store_of_something_else_is_rejected(tmp_path, model, pictures, change, said) -> None:
    given = {"model": model, "dataset": pictures, "path": tmp_path / "maps", "layer": "features", "input_spec": SPEC}
    compute_maps(**given)
    with pytest.raises(SightlineError, match=said):
        compute_maps(**given | change)


def test_an_interrupted_pass_resumes_and_does_nothing_twice(tmp_path, model, pictures, monkeypatch) -> None:
    given = {"path": tmp_path / "maps", "layer": "features", "input_spec": SPEC, "chunk_size": 2}
    explained: list[int] = []
    plain = CAM.explain

    def fails_at_the_third(self, model, inputs, targets, layer):
        if len(explained) == 2:
            raise KeyboardInterrupt
        explained.append(len(inputs))
        return plain(self, model, inputs, targets, layer)

    monkeypatch.setattr(CAM, "explain", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        compute_maps(model, pictures, **given)
    store = MapStore(tmp_path / "maps")
    assert store.finished.tolist() == [True] * 4 + [False] * 6
    with pytest.raises(SightlineError, match=r"no map yet of the samples \[5, 9\]"):
        store.read([0, 5, 9])
    with pytest.raises(SightlineError, match="lacks 6 of 10"):
        create_loader(pictures, size=16, batch_size=2, train=True, maps=store)

    def counts(self, model, inputs, targets, layer):
        explained.append(len(inputs))
        return plain(self, model, inputs, targets, layer)

    monkeypatch.setattr(CAM, "explain", counts)
    store = compute_maps(model, pictures, **given)
    assert explained == [2] * 5
    torch.testing.assert_close(store.read(range(10)), expected(model, pictures), rtol=0, atol=0.5 / 255 + 1e-6)


def test_random_draws_are_equal_after_an_interruption(tmp_path, model, pictures) -> None:
    given = {"method": "randomcam", "layer": "features", "input_spec": SPEC, "chunk_size": 2}
    whole = compute_maps(model, pictures, tmp_path / "whole", **given)
    begun = compute_maps(model, pictures, tmp_path / "begun", **given)
    begun._finished[4:] = False
    begun._maps[4:] = 0
    torch.testing.assert_close(
        compute_maps(model, pictures, begun.path, **given).read(range(10)), whole.read(range(10))
    )


def test_the_maps_of_several_layers_are_averaged(tmp_path, model, pictures) -> None:
    layers = ["features.0", "features.2"]
    store = compute_maps(model, pictures, tmp_path / "maps", layer=layers, input_spec=SPEC)
    batch = next(iter(create_loader(pictures, size=16, batch_size=10, train=False)))
    averaged = sl.explain(model, batch.images, layer=layers, input_spec=SPEC)
    torch.testing.assert_close(store.read(range(10)), averaged, rtol=0, atol=0.5 / 255 + 1e-6)


def test_a_store_that_was_not_made_to_its_end_is_made_again(tmp_path, model, pictures, monkeypatch) -> None:
    def killed(self, target):
        raise KeyboardInterrupt

    given = {"path": tmp_path / "maps", "layer": "features", "input_spec": SPEC}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            compute_maps(model, pictures, **given)
    assert not (tmp_path / "maps").exists()
    assert compute_maps(model, pictures, **given).finished.all()
    assert [f.name for f in tmp_path.iterdir()] == ["maps"]


def test_empty_maps_are_maps(tmp_path) -> None:
    store = MapStore.create(tmp_path / "maps", {"data": "d"}, (4, 2, 2), "uint8", 2)
    other = MapStore(tmp_path / "maps")  # opened before there was anything
    store.write(0, torch.ones(2, 2, 2))
    store.write(0, torch.zeros(2, 2, 2))  # Zarr writes no file for a chunk of zeros
    assert other.finished.tolist() == [True, True, False, False]
    assert other.read([1, 0]).sum() == 0
    with pytest.raises(SightlineError, match=r"no map yet of the samples \[2\]"):
        other.read([0, 2])
    with pytest.raises(SightlineError, match=r"indices range over -1 .. 0"):
        other.read([-1, 0])
    assert other.read([]).shape == (0, 2, 2)


def test_a_disk_that_takes_nothing_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SightlineError, match=r"cannot write .*file/maps: (File exists|Not a directory)"):
        MapStore.create(tmp_path / "file" / "maps", {}, (4, 2, 2), "uint8", 2)
    store = MapStore.create(tmp_path / "maps", {}, (4, 2, 2), "uint8", 2)
    (store.path / "maps" / "c").write_text("in the way")
    with pytest.raises(RunFailedError, match=r"cannot write .*maps: (File exists|Not a directory)"):
        store.write(0, torch.ones(2, 2, 2))
    assert not MapStore(store.path).finished.any()


KILLED = """
    import sys, time, torch
    sys.path[:0] = {paths!r}
    from drawn import SPEC, Pictures
    from networks import TinyCNN
    from sightline.explainers.cam import CAM
    from sightline.explainers.maps import compute_maps

    torch.manual_seed(0)
    plain = CAM.explain
    def slow(self, *arguments):
        time.sleep(0.05)
        return plain(self, *arguments)
    CAM.explain = slow
    compute_maps(TinyCNN().eval(), Pictures(200), sys.argv[1], layer="features", input_spec=SPEC, chunk_size=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_kill_loses_what_was_in_work_and_no_more(tmp_path, model) -> None:
    here = Path(__file__).parent
    program = textwrap.dedent(KILLED).format(paths=[str(here), str(here.parents[1])])
    folder = tmp_path / "maps"
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    deadline = time.monotonic() + 120
    while not (folder / "finished" / "c").exists() or len(list((folder / "finished" / "c").iterdir())) < 5:
        assert process.poll() is None, "the pass ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = MapStore(folder).finished
    assert 8 <= finished.sum() < 200
    whole = expected(model, Pictures(200))
    kept = finished.nonzero().flatten()
    torch.testing.assert_close(MapStore(folder).read(kept), whole[kept], rtol=0, atol=0.5 / 255 + 1e-5)
    store = compute_maps(model, Pictures(200), folder, layer="features", input_spec=SPEC, chunk_size=2)
    torch.testing.assert_close(store.read(range(200)), whole, rtol=0, atol=0.5 / 255 + 1e-5)


def test_maps_that_cannot_be_stored_raise_and_are_not_marked(tmp_path) -> None:
    store = MapStore.create(tmp_path / "maps", {"data": "d"}, (4, 2, 2), "uint8", 2)
    for maps, said in (
        (torch.full((2, 2, 2), -0.5), r"range over \[-0.5"),
        (torch.full((2, 2, 2), torch.nan), "range over"),
        (torch.zeros(2, 3, 2), "expected \\(n, 2, 2\\)"),
    ):
        with pytest.raises(SightlineError, match=said):
            store.write(0, maps)
    half = MapStore.create(tmp_path / "half", {"data": "d"}, (4, 2, 2), "float16", 2)
    with pytest.raises(SightlineError, match="float16 cannot"):
        half.write(0, torch.full((2, 2, 2), 1e6))
    half.write(2, torch.full((2, 2, 2), -1.5))
    assert half.read([3]).unique().tolist() == [-1.5]
    assert not store.finished.any()
    assert half.finished.tolist() == [False, False, True, True]


def test_folders_that_are_no_store_are_named_and_unchanged(tmp_path, model, pictures) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(SightlineError, match="exists and is not a store"):
        compute_maps(model, pictures, tmp_path / "notes", layer="features", input_spec=SPEC)
    assert [f.name for f in (tmp_path / "notes").iterdir()] == ["a.txt"]
    with pytest.raises(SightlineError, match="is not a store of maps"):
        MapStore(tmp_path / "nothing")


SHARED = """
    import os, sys, time, torch
    sys.path[:0] = {paths!r}
    from drawn import SPEC, Pictures
    from networks import TinyCNN
    from sightline.data.map_store import MapStore
    from sightline.explainers.maps import compute_maps

    if os.environ.get("LOCAL_RANK") == "1":  # comes late, when the first process has written something
        opened = MapStore.__init__
        def late(self, path):
            time.sleep(2)
            opened(self, path)
        MapStore.__init__ = late
    torch.manual_seed(0)
    compute_maps(TinyCNN().eval(), Pictures(), sys.argv[1], layer="features", input_spec=SPEC, chunk_size=2, devices=2)
"""


@pytest.mark.slow
def test_two_processes_write_one_store(tmp_path, model, pictures) -> None:
    here = Path(__file__).parent
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(SHARED).format(paths=[str(here), str(here.parents[1])]))
    done = subprocess.run([sys.executable, program, tmp_path / "maps"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    store = MapStore(tmp_path / "maps")
    torch.testing.assert_close(store.read(range(10)), expected(model, pictures), rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_a_damaged_or_lost_file_is_never_read_as_maps(tmp_path, dtype) -> None:
    """Each byte of a file is changed in turn: the maps are right, or an error names the store."""
    maps = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    maps[3] = 0
    MapStore.create(tmp_path / "maps", {}, (4, 6, 6), dtype, 2).write(0, maps)
    right = MapStore(tmp_path / "maps").read(range(4))
    assert not right[3].any()
    files = sorted((tmp_path / "maps" / "maps" / "c").rglob("0"))
    files = [file for file in files if file.is_file()]
    assert len(files) == 2
    for file in files:
        whole = file.read_bytes()
        damaged = [
            whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :] for place in range(0, len(whole), 7)
        ]
        for content in (*damaged, whole[:-9], whole[:9], b"", None):
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)
            try:
                found = MapStore(tmp_path / "maps").read(range(4))
            except SightlineError as error:
                assert re.search(rf"cannot read {tmp_path}/maps.*; remove the folder", str(error))  # noqa: PT017
            else:
                assert content is not None
                assert torch.equal(found, right)
        file.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"zarr_format": 9}'])
@pytest.mark.parametrize("name", ["zarr.json", "maps/zarr.json", "finished/zarr.json"])
def test_a_damaged_description_is_named(tmp_path, name, content) -> None:
    store = MapStore.create(tmp_path / "maps", {}, (4, 6, 6), "uint8", 2)
    store.write(0, torch.ones(4, 6, 6))
    (tmp_path / "maps" / name).write_bytes(content)
    with pytest.raises(SightlineError, match=f"{tmp_path}/maps"):
        MapStore(tmp_path / "maps")


@pytest.mark.parametrize(
    ("side", "dtype", "together"),
    [(16, "uint8", 6), (128, "uint8", 3), (256, "uint8", 1), (128, "float16", 2), (512, "uint8", 1)],
)
def test_small_maps_are_compressed_together_up_to_64_kib(tmp_path, side, dtype, together) -> None:
    store = MapStore.create(tmp_path / "maps", {}, (7, side, side), dtype, 6)
    maps = torch.rand(6, side, side)
    store.write(0, maps)
    torch.testing.assert_close(MapStore(tmp_path / "maps").read([3, 0]), maps[[3, 0]], rtol=0, atol=0.5 / 255 + 1e-3)
    layout = json.loads((tmp_path / "maps" / "maps" / "zarr.json").read_text())
    codec = next(codec for codec in layout["codecs"] if codec["name"] == "sharding_indexed")
    assert codec["configuration"]["chunk_shape"] == [together, side, side]
