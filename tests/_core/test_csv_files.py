from sightline._core.csv_files import csv_text


def test_csv_text_of_sequences_quotes_what_needs_it() -> None:
    assert csv_text(["a", "b"], [[1, "x, y"], [None, 0.5]]) == 'a,b\r\n1,"x, y"\r\n,0.5\r\n'


def test_csv_text_of_mappings_follows_the_header() -> None:
    assert csv_text(["a", "b"], [{"b": 2, "a": 1}, {"b": 3}], "\n") == "a,b\n1,2\n,3\n"
