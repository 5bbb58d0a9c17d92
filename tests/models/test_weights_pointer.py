from pathlib import Path

import pytest

from sightline.errors import SightlineError
from sightline.models import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_git_lfs_has_not_fetched(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model.{suffix}"
    file.write_text(POINTER)
    with pytest.raises(SightlineError, match=r"model\.\w+ is a pointer of Git LFS.*git lfs pull"):
        load_model("sightline/lenet5", str(file), 2, 32)
