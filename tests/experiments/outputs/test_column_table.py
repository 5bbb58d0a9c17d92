"""The table of variants x columns: whose values of how many images it shows, with the papers' digits."""

from sightline.experiments.outputs.column_table import ColumnTable
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.studies.study import Part

BIRDS, PETS = "CUB, ours", "Pet, ours"
PANELS = {"CUB": {"ours": BIRDS}, "Pet": {"ours": PETS}}


def run(**columns: tuple[float, int]) -> Part:
    figures = {f"test/{name}": {"value": value, "n": n} for name, (value, n) in columns.items()}
    return Part({"columns": list(figures), "figures": figures, "seconds": 1.0})


def report(birds: Part, pets: Part, **paper_values: dict[str, float]) -> str:
    columns = [*birds.values["columns"]]
    done = {f"{BIRDS}/0": birds, f"{PETS}/0": pets}
    return ColumnTable(columns=columns).summary(FinishedRuns(PANELS, [*done], done, {}, paper_values))


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_row_has_the_number_of_its_own_images() -> None:
    text = report(run(accuracy=(0.5, 200)), run(accuracy=(0.5, 24)))
    assert [cells(text, row)[-1] for row in (BIRDS, PETS)] == ["test 200", "test 24"]


def test_equal_numbers_are_named_once_over_the_table() -> None:
    text = report(run(accuracy=(0.5, 24)), run(accuracy=(0.5, 24)))
    assert "Images: test 24." in text
    assert cells(text, BIRDS)[-1] == "1"  # seconds are the last column


def test_metrics_of_fewer_images_of_a_split_show_the_fewest_and_the_most() -> None:
    text = report(
        run(accuracy=(0.5, 200), energy_in_mask=(0.5, 150)), run(accuracy=(0.5, 24), energy_in_mask=(0.5, 24))
    )
    assert [cells(text, row)[-1] for row in (BIRDS, PETS)] == ["test 150 to 200", "test 24"]


def test_values_of_the_paper_keep_their_digits() -> None:
    values = {"accuracy": 0.1971}, {"accuracy": 0.1973}, {"accuracy": 0.1974}
    shown = []
    for value in values:
        paper = {BIRDS: {f"test/{name}": each for name, each in value.items()}}
        shown.append(cells(report(run(accuracy=(0.2, 8)), run(accuracy=(0.2, 8)), **paper), BIRDS)[2])
    assert shown == ["0.200 [0.1971]", "0.200 [0.1973]", "0.200 [0.1974]"]
