"""The values of the papers that recipes show next to ours: the papers' tables, copied from their text, all in percent."""

from collections.abc import Iterator

import pytest

from sightline.studies import read_study

SO_LOSS_1 = """
ResNet-18 | CE-Loss                | 63.27 0.40 | 81.52 0.56 | 75.97 0.85 | 71.22
ResNet-18 | SO-Loss                | 50.97 0.43 | 70.87 1.59 | 41.62 0.86 | 48.31
ResNet-18 | CE-Loss + SO-Loss      | 64.92 0.60 | 82.68 0.56 | 75.91 0.69 | 71.85
ResNet-18 | SO-Loss-Blur           | 61.95 0.43 | 74.93 0.27 | 50.89 1.10 | 49.44
ResNet-18 | CE-Loss + SO-Loss-Blur | 66.17 0.28 | 84.84 0.23 | 77.51 0.38 | 76.17
ResNet-50 | CE-Loss                | 62.15 0.48 | 86.20 0.51 | 86.92 0.43 | 73.25
ResNet-50 | SO-Loss                | 40.99 0.39 | 83.04 0.55 | 83.75 2.12 | 50.76
ResNet-50 | CE-Loss + SO-Loss      | 63.91 0.25 | 88.21 0.28 | 88.00 0.60 | 74.99
ResNet-50 | SO-Loss-Blur           | 42.90 0.30 | 84.98 0.40 | 87.59 0.35 | 49.97
ResNet-50 | CE-Loss + SO-Loss-Blur | 65.37 0.33 | 90.14 0.25 | 90.30 0.52 | 77.58
ViT-B/16  | CE-Loss                | 56.18 0.56 | 92.59 0.51 | 92.81 0.25 | 72.51
ViT-B/16  | SO-Loss                | 63.02 0.44 | 90.62 0.64 | 87.73 0.46 | 61.34
ViT-B/16  | CE-Loss + SO-Loss      | 59.79 0.38 | 93.73 0.49 | 93.01 0.70 | 73.32
ViT-B/16  | SO-Loss-Blur           | 63.82 0.36 | 92.61 0.37 | 89.12 0.81 | 61.36
ViT-B/16  | CE-Loss + SO-Loss-Blur | 60.94 0.33 | 96.05 0.36 | 94.72 0.43 | 74.85
"""
LOTS_5_1 = """
ResNet-50 | Zero  | 11.31 | 43.80 | 90.09 | 32.20 | 18.92
ResNet-50 | Class | 12.66 | 41.70 | 75.17 | 31.11 | 21.29
ResNet-50 | Mean  | 11.66 | 43.60 | 80.68 | 31.23 | 21.13
"""
LOTS_5_2 = """
AlexNet       | Random-CAM       | 49.11 | 18.50 | 55.13 | 28.72 | 25.6
AlexNet       | Grad-CAM         | 18.31 | 41.80 | 75.01 | 39.17 | 16.73
AlexNet       | Grad-CAM++       | 19.41 | 39.20 | 84.92 | 37.98 | 16.95
AlexNet       | SmoothGrad-CAM++ | 20.93 | 35.80 | 92.06 | 37.03 | 17.74
AlexNet       | Layer-CAM        | 20.26 | 37.60 | 91.96 | 39.14 | 16.21
AlexNet       | HiRes-CAM        | 20.03 | 38.90 | 80.98 | 41.01 | 15.81
AlexNet       | LOTS             | 28.96 | 25.60 | 92.47 | 34.85 | 19.39
ResNet-50     | Random-CAM       | 38.07 | 25.80 | 60.45 | 29.43 | 26.99
ResNet-50     | Grad-CAM         | 15.72 | 47.40 | 94.22 | 34.67 | 18.58
ResNet-50     | Grad-CAM++       | 19.17 | 44.20 | 93.03 | 34.29 | 18.99
ResNet-50     | SmoothGrad-CAM++ | 15.66 | 45.20 | 92.32 | 33.22 | 19.94
ResNet-50     | Layer-CAM        | 15.35 | 47.20 | 95.24 | 34.09 | 18.89
ResNet-50     | HiRes-CAM        | 14.04 | 48.60 | 95.19 | 34.92 | 19.22
ResNet-50     | LOTS             | 11.59 | 42.90 | 90.01 | 32.18 | 18.96
DenseNet-121  | Random-CAM       | 42.55 | 15.60 | 56.39 | 49.77 | 45.78
DenseNet-121  | Grad-CAM         | 8.59  | 43.90 | 97.90 | 63.88 | 31.07
DenseNet-121  | Grad-CAM++       | 9.38  | 43.60 | 97.54 | 63.46 | 31.55
DenseNet-121  | SmoothGrad-CAM++ | 9.16  | 40.90 | 98.02 | 62.21 | 32.64
DenseNet-121  | Layer-CAM        | 8.77  | 42.70 | 98.62 | 63.12 | 31.53
DenseNet-121  | HiRes-CAM        | 8.23  | 45.00 | 97.91 | 64.48 | 31.26
DenseNet-121  | LOTS             | 14.31 | 31.20 | 88.48 | 59.22 | 32.07
ConvNeXt-Tiny | Random-CAM       | 63.48 | 4.00  | 59.40 | 32.91 | 30.96
ConvNeXt-Tiny | Grad-CAM         | 39.07 | 14.80 | 92.45 | 37.86 | 22.47
ConvNeXt-Tiny | Grad-CAM++       | 39.07 | 12.70 | 92.40 | 37.49 | 22.89
ConvNeXt-Tiny | SmoothGrad-CAM++ | 42.77 | 12.20 | 88.05 | 35.86 | 24.72
ConvNeXt-Tiny | Layer-CAM        | 38.11 | 12.80 | 93.07 | 38.11 | 22.26
ConvNeXt-Tiny | HiRes-CAM        | 40.33 | 15.20 | 93.25 | 39.54 | 23.55
ConvNeXt-Tiny | LOTS             | 38.99 | 6.70  | 52.03 | 33.15 | 25.89
"""
LOTS_5_3 = """
Random-CAM       | 15.42    | 35.51    | 68.18    | 36.57
Grad-CAM         | 11.28    | 23.69    | 54.80    | 22.08
Grad-CAM++       | 17.18    | 33.04    | 76.43    | 43.33
SmoothGrad-CAM++ | 608.73   | 765.38   | 1699.67  | 251.02
Layer-CAM        | 10.93    | 21.56    | 48.99    | 20.14
HiRes-CAM        | 19.82    | 35.51    | 78.86    | 56.56
LOTS             | 25488.27 | 40515.11 | 63133.59 | 39143.17
"""
EC_1 = """
ResNet-50, Baseline         | 45.72 | 9.38  | 9.38  | 12.39
ResNet-50, HNM              | 44.89 | 11.98 | 11.98 | 14.02
ResNet-50, FL               | 45.10 | 10.46 | 10.42 | 12.36
ResNet-50, EFL              | 44.54 | 10.67 | 10.68 | 11.74
ResNet-50, Ours-XGrad-CAM   | 46.41 | 12.85 | 12.85 | 14.56
ResNet-50, Ours-Eigen-CAM   | 46.48 | 12.54 | 12.54 | 14.98
MobileNetV2, Baseline       | 53.31 | 19.67 | 19.67 | 21.23
MobileNetV2, HNM            | 53.69 | 19.71 | 19.71 | 21.06
MobileNetV2, FL             | 53.38 | 19.88 | 19.88 | 21.12
MobileNetV2, EFL            | 53.45 | 19.73 | 19.73 | 20.99
MobileNetV2, Ours-XGrad-CAM | 55.80 | 19.90 | 19.90 | 21.25
MobileNetV2, Ours-Eigen-CAM | 55.32 | 19.74 | 19.75 | 21.28
"""
EC_2 = """
VGG-16, {}, Ours, Grad-CAM     | 37 53 10 | 39 50 11
VGG-16, {}, Ours, Inte-Grad    | 34 52 14 | 38 46 16
ResNet-50, {}, Ours, Grad-CAM  | 43 49 8  | 59 30 11
ResNet-50, {}, Ours, Inte-Grad | 45 45 10 | 62 28 10
"""
EC_3 = """
HNM, Grad-CAM   | 38 21 41
HNM, Inte-Grad  | 42 6 52
Ours, Grad-CAM  | 59 30 11
Ours, Inte-Grad | 62 28 10
"""
EC_4 = """
Baseline | 66.2 | 21.87 | 70.7
HNM      | 71.8 | 22.34 | 78.8
AL       |      |       | 80.1
Ours     | 73.4 | 22.52 | 82.1
"""
EC_5 = """
softsign | 73.1 | 22.29
arctan1  | 73.1 | 22.05
tanh     | 73.4 | 22.52
"""
RIA_1 = """
VGG16    | 86.6  | 91.7
ResNet50 | 88.46 | 88.99
ResNet18 | 88.51 | 88.78
"""
RIA_2 = """
ResNet18, frozen features | 98.8 | 99
"""
IMPACTX_2 = """
CIFAR-10, LeNet-5          | 67.96 | 70.65 | 68.49 | 68.10
CIFAR-10, MobileNet        | 94.63 | 96.27 | 95.41 | 94.75
CIFAR-10, EfficientNet-B2  | 98.06 | 98.38 | 98.19 | 98.08
CIFAR-100, LeNet-5         | 36.23 | 39.49 | 37.62 | 36.20
CIFAR-100, MobileNet       | 76.72 | 79.37 | 78.24 | 76.98
CIFAR-100, EfficientNet-B2 | 87.88 | 89.06 | 88.89 | 88.27
STL-10, LeNet-5            | 52.59 | 55.86 | 53.36 | 52.99
STL-10, MobileNet          | 91.07 | 95.79 | 92.71 | 91.42
STL-10, EfficientNet-B2    | 98.76 | 99.00 | 98.59 | 98.65
"""
METRICS = ("average_drop", "average_increase", "coherency", "insertion", "deletion")
Figure = float | tuple[float, ...]


def rows(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        yield [cell.strip() for cell in line.split("|")]


def share(cell: str) -> Figure:
    """A percentage, or a mean and a standard deviation in percent, as shares."""
    found = tuple(round(float(number) / 100, 6) for number in cell.split())
    return found[0] if len(found) == 1 else found


def test_so_loss_table_1_equals_the_printed_values() -> None:
    printed = {
        f"{data}, {network}, {loss}": {"test/accuracy": share(cell)}
        for network, loss, *cells in rows(SO_LOSS_1)
        for data, cell in zip(("CUB", "Pet", "VOC", "aerial"), cells, strict=True)
    }
    assert read_study("so-loss", "table-1").paper_values == printed


@pytest.mark.parametrize(("item", "table"), [("table-5.1", LOTS_5_1), ("table-5.2", LOTS_5_2)])
def test_metrics_of_the_thesis_equal_the_printed_values(item: str, table: str) -> None:
    printed: dict[str, dict[str, dict[str, Figure]]] = {}
    for model, row, *cells in rows(table):
        printed.setdefault(model, {})[row] = dict(zip(METRICS, map(share, cells), strict=True))
    assert read_study("lots", item).paper_values == printed


def test_times_of_the_thesis_equal_the_printed_values() -> None:
    table = read_study("lots", "table-5.3")
    models = [model.label for model in table.models]
    assert table.paper_values == {
        method: dict(zip(models, map(float, times), strict=True)) for method, *times in rows(LOTS_5_3)
    }


def test_accuracy_and_miou_of_explanation_consistency_equal_the_printed_values() -> None:
    columns = ("test/accuracy", "test/miou@xgradcam", "test/miou@gradcam", "test/miou@ablationcam")
    printed = {row: dict(zip(columns, map(share, cells), strict=True)) for row, *cells in rows(EC_1)}
    assert read_study("ec", "table-1").paper_values == printed
    printed = {row: dict(zip(("test/accuracy", "test/miou@eigencam"), map(share, cells))) for row, *cells in rows(EC_5)}
    assert read_study("ec", "table-5").paper_values == printed


def test_interpretable_network_of_explanation_consistency_equals_the_printed_values() -> None:
    cub, in9 = ("test/accuracy", "test/miou@eigencam"), "mixed_rand/accuracy"
    printed: dict[str, dict[str, Figure]] = {}
    for row, accuracy, miou, out_of_distribution in rows(EC_4):
        if accuracy:
            printed[f"CUB, {row}"] = dict(zip(cub, (share(accuracy), share(miou)), strict=True))
        printed[f"IN-9, {row}"] = {in9: share(out_of_distribution)}
    assert read_study("ec", "table-4").paper_values == printed


def test_votes_of_explanation_consistency_equal_the_printed_values() -> None:
    def votes(cell: str) -> dict[str, Figure]:
        return dict(zip(("pos", "same", "neg"), map(share, cell.split()), strict=True))

    (two,) = (output.paper_votes for output in read_study("ec", "table-2").outputs)
    assert two == {
        row.format(data): votes(cell) for row, *cells in rows(EC_2) for data, cell in zip(("STL-10", "VOC"), cells)
    }
    (three,) = (output.paper_votes for output in read_study("ec", "table-3").outputs)
    assert three == {row: votes(cell) for row, cell in rows(EC_3)}


@pytest.mark.parametrize(
    ("paper", "item", "table", "variants"),
    [
        ("ria", "table-1", RIA_1, ("baseline", "RIA")),
        ("ria", "table-2", RIA_2, ("baseline", "RIA")),  # its row of ResNet-50 repeats Table 1's and is left out
        ("impactx", "table-2", IMPACTX_2, ("Baseline", "IMPACTX", "ABN", "WAE")),
    ],
)
def test_accuracy_of_ria_and_impactx_equals_the_printed_values(
    paper: str, item: str, table: str, variants: tuple[str, ...]
) -> None:
    printed = {
        f"{row}, {variant}": {"test/accuracy": share(cell)}
        for row, *cells in rows(table)
        for variant, cell in zip(variants, cells, strict=True)
    }
    assert read_study(paper, item).paper_values == printed
