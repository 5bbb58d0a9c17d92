import re

import pytest
import torch
from safetensors.torch import save_file

from sightline._core.reading import read_json, read_tensors
from sightline._core.strict import read_mapping
from sightline.errors import SightlineError


@pytest.mark.parametrize("read", [read_json, read_tensors, read_mapping])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xe9t\xe9: 1", b"\x08\0\0\0\0\0\0\0{}      ", b"- 1"])
def test_a_damaged_file_of_any_kind_raises_with_its_name(tmp_path, read, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    if (read, content) == (read_tensors, b"\x08\0\0\0\0\0\0\0{}      "):
        assert read(path) == ({}, {})
        return
    with pytest.raises(SightlineError, match=re.escape(str(path))):
        read(path)


def test_reason_is_a_sentence(tmp_path):
    with pytest.raises(SightlineError, match=f"cannot read {tmp_path}/none.json: it is missing; make it"):
        read_json(tmp_path / "none.json", "make it")
    (tmp_path / "latin").write_bytes("ü: 1".encode("latin-1"))
    with pytest.raises(SightlineError, match="latin: it is not UTF-8 text; save it as YAML in UTF-8"):
        read_mapping(tmp_path / "latin")


def test_tensors_are_chosen_by_the_end_of_their_names(tmp_path):
    save_file({"a.x": torch.ones(2), "b.y": torch.zeros(1)}, tmp_path / "file", {"k": "v"})
    tensors, metadata = read_tensors(tmp_path / "file", ending=".x")
    assert (list(tensors), metadata) == (["a.x"], {"k": "v"})
