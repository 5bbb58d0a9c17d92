"""Functions named as `package.module:function`."""

import math
from pathlib import Path

import pytest

from sightline._core.user_code import load_function
from sightline.errors import SightlineError


def test_function_of_a_package_is_found() -> None:
    assert load_function("math:sqrt", "segmenter") is math.sqrt


def test_module_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_maps.py").write_text("class Maps:\n    @staticmethod\n    def zero(x):\n        return 0 * x\n")
    monkeypatch.chdir(tmp_path)
    assert load_function("my_own_maps:Maps.zero", "function")(3) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math", r"segmenter is 'math'; expected 'package\.module:function'"),
        (":sqrt", "expected 'package"),
        ("no_such_module:f", "cannot be imported: No module named"),
        ("math:no_such", "cannot be imported"),
        ("math:pi", "is a float; expected a function"),
    ],
)
def test_function_names_of_other_forms_raise(name: str, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        load_function(name, "segmenter")
