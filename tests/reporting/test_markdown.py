import re

from sightline.reporting.markdown import markdown


def test_text_with_any_characters_is_one_cell():
    header, rows = ["name|x", "value"], [["a|b", "1"], ["c\nd", "2"], ["|", "|"]]
    lines = markdown(header, rows).split("\n")
    assert len(lines) == 5
    for line in lines:
        assert len(re.split(r"(?<!\\)\|", line)) == 4  # two cells and what is beside the table
    assert r"| a\|b | 1 |" in lines
