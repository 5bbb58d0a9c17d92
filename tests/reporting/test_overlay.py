import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from sightline import SightlineError
from sightline.reporting import show
from sightline.reporting.overlay import PLASMA, blend
from sightline.reporting.tiles import GAP, LETTERS, MARGIN, SIDE, draw_tiles


def test_blend_has_the_expected_pixels():
    image = torch.tensor([[[0.5, 1.0, 0.2]], [[0.5, 0.0, 0.2]], [[0.5, 0.0, 0.2]]])[None]  # grey, red, dark grey
    maps = torch.tensor([[[0.0, 0.5, 1.0]]])
    expected = torch.tensor(
        [
            [0.5, 0.5, 0.5],  # relevance 0 leaves the photograph
            [0.65 * 0.299 + 0.35 * c for c in PLASMA[128].tolist()],
            [0.3 * 0.2 + 0.7 * c for c in PLASMA[255].tolist()],
        ],
        dtype=torch.float32,
    )
    assert torch.allclose(blend(image, maps)[0, :, 0].T, expected, atol=1e-6)


def test_colormap_is_plasma():
    expected = torch.tensor(matplotlib.colormaps["plasma"].colors)
    assert (PLASMA - expected).abs().max() < 0.025


def test_one_channel_is_its_own_grey():
    grey, maps = torch.rand(2, 1, 4, 5), torch.rand(2, 4, 5)
    assert torch.allclose(blend(grey, maps), blend(grey.expand(-1, 3, -1, -1), maps), atol=1e-6)


def test_overlay_saves_and_displays(tmp_path):
    images = torch.rand(2, 3, 8, 8)
    overlay = show(images, {"gradcam": torch.rand(2, 8, 8), "eigencam": torch.rand(2, 8, 8)}, titles=["a", "b"])
    saved = overlay.save(tmp_path / "new folder" / "maps.png")
    with Image.open(saved) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height  # three columns, two rows
    assert overlay._repr_png_().startswith(b"\x89PNG")


def test_overlay_grid_has_a_tile_per_image_and_space_for_titles():
    images = torch.rand(2, 3, 8, 8)
    maps = {"gradcam": torch.rand(2, 8, 8), "undefined": None}
    plain, titled = (drawn(show(images, maps, titles=titles)) for titles in (None, ["first", "second"]))
    assert plain.height == titled.height == 2 * (SIDE + GAP) - GAP + 2 * MARGIN + LETTERS + GAP
    assert plain.width == 3 * (SIDE + GAP) - GAP + 2 * MARGIN
    assert titled.width == plain.width + LETTERS + GAP


def test_overlay_tiles_show_the_images():
    image = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 1, 2, 2)
    pixels = np.asarray(drawn(show(image, torch.zeros(1, 2, 2))))
    top = MARGIN + LETTERS + GAP
    for left in (MARGIN, MARGIN + SIDE + GAP):  # a map of zeros leaves the image as it is
        tile = pixels[top : top + SIDE, left : left + SIDE]
        corners = [tile[10, 10, 0], tile[10, -10, 0], tile[-10, 10, 0], tile[-10, -10, 0]]
        assert corners == [0, 255, 255, 0]


def test_long_caption_is_shortened_to_its_column():
    columns = [("a caption that is much longer than one image is wide" * 2, torch.rand(1, 1, 8, 8))]
    pixels = np.asarray(draw_tiles(columns, []))[: MARGIN + LETTERS]
    assert (pixels[:, MARGIN:-MARGIN] < 255).any()
    assert (pixels[:, :MARGIN] == 255).all()
    assert (pixels[:, -MARGIN:] == 255).all()


def test_a_map_with_a_graph_is_shown():
    assert show(torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8, requires_grad=True))._repr_png_()


def drawn(overlay):
    return Image.open(io.BytesIO(overlay._repr_png_()))


GOOD = torch.rand(2, 3, 8, 8)
MAPS = torch.rand(2, 8, 8)


@pytest.mark.parametrize(
    ("images", "maps", "titles", "message"),
    [
        (GOOD[0], MAPS, None, r"images have shape \(3, 8, 8\)"),
        (torch.rand(2, 4, 8, 8), MAPS, None, "images have 4 channels"),
        ((255 * GOOD).to(torch.uint8), MAPS, None, "images have dtype torch.uint8"),
        (GOOD * 2 - 1, MAPS, None, r"images range over .*expected \[0, 1\]"),
        (GOOD, MAPS[:1], None, r"maps have shape \(1, 8, 8\); expected \(2, 8, 8\)"),
        (GOOD, MAPS[:, :4], None, r"maps have shape \(2, 4, 8\)"),
        (GOOD, MAPS * 3, None, "maps range over"),
        (GOOD, MAPS * float("nan"), None, "NaN or infinity in maps"),
        (GOOD, MAPS.numpy(), None, "maps is a ndarray"),
        (GOOD, (MAPS > 0.5), None, "maps have dtype torch.bool"),
        (GOOD, {"gradcam": MAPS[:1]}, None, r"maps\['gradcam'\] has shape"),
        (GOOD, {}, None, "maps is an empty mapping"),
        (GOOD, MAPS, ["one"], "titles has 1 entries for 2 images"),
    ],
)
def test_show_invalid_input_raises(images, maps, titles, message):
    with pytest.raises(SightlineError, match=message):
        show(images, maps, titles)


def test_a_suffix_that_names_no_format(tmp_path):
    with pytest.raises(SightlineError, match="cannot save"):
        show(GOOD, MAPS).save(tmp_path / "maps.nonsense")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SightlineError, match="cannot write"):
        show(GOOD, MAPS).save(tmp_path / "file" / "maps.png")
