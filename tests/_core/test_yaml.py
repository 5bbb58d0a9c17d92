import pytest

from sightline._core.strict import parse_yaml


@pytest.mark.parametrize("word", ["yes", "no", "Yes", "NO", "on", "off", "y", "n"])
def test_answers_are_text_as_in_yaml_1_2(word: str) -> None:
    assert parse_yaml(f"[{word}, {word}]", "text") == [word, word]
    assert parse_yaml(f"{word}: 1", "text") == {word: 1}


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), ("1e-3", 1e-3), ("null", None), ("12", 12)]
)
def test_yaml_values_of_other_types_stay(text: str, value: object) -> None:
    assert parse_yaml(text, "text") == value
