"""Small studies and servers for the tests."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from sightline.rating.store import Drawn, Store


def jpeg(*color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), color).save(buffer, format="JPEG")
    return buffer.getvalue()


def make_study(path: Path, pairs: int = 6, seed: int = 0) -> Store:
    """A study of plain pictures: the image is grey, a's maps are red, b's blue."""
    facts = {
        "contenders": [{"run": "/runs/guided", "explainer": "gradcam"}, {"run": "/runs/plain", "explainer": "gradcam"}],
        "seed": seed,
        "images": pairs,
        "split": "test",
    }
    parts = {"image": (128, 128, 128), "a": (200, 0, 0), "b": (0, 0, 200)}
    drawn = [
        Drawn(10 * number, f"class {number}", {part: jpeg(*color) for part, color in parts.items()})  # type: ignore[misc]
        for number in range(pairs)
    ]
    examples = {f"example-{name}": jpeg(0, 200, 0) for name in ("image", "good", "bad")}
    return Store.create(path, facts, drawn, examples)


@contextmanager
def serving(path: Path, head_seconds: float = 10) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server in a process of its own, with its address and token."""
    script = (
        "import sys; from pathlib import Path; from sightline.rating.server import serve;"
        "from sightline.rating.store import Store; from sightline.serving.listening import TimedProtocol;"
        "TimedProtocol.head_seconds = float(sys.argv[2]);"
        "serve(Store(Path(sys.argv[1])), port=0, announce=lambda link: print(link, flush=True))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(head_seconds)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        link = urlsplit(process.stdout.readline().strip())
        yield process, f"{link.scheme}://{link.netloc}", parse_qs(link.query)["token"][0]
    finally:
        process.kill()
        process.wait()
