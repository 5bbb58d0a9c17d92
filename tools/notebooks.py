"""Run the notebooks of the docs and render them as pages: `python tools/notebooks.py`, from the repository's root.

Each notebook in docs/notebooks has a page of the same name: its text, its code and the output of the code. A cell that fails
ends the command with the name of its notebook. The notebooks use bundled images and need no network.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"


def run_cell(source: str, scope: dict[str, Any], name: str) -> tuple[str, bytes | None]:
    """Run the code of a cell; return what it prints, with the value of a last expression, and the image that it shows."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(tree, name, "exec"), scope)
        value = eval(compile(ast.Expression(last.value), name, "eval"), scope) if isinstance(last, ast.Expr) else None
    if value is None:
        return said.getvalue(), None
    if hasattr(value, "_repr_png_"):
        return said.getvalue(), value._repr_png_()
    return f"{said.getvalue()}{value!r}\n", None


def render(notebook: Path, images: Path) -> str:
    """Run a notebook in an empty folder; return its page, and write its images."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    scope: dict[str, Any] = {"__name__": "__main__"}
    parts: list[str] = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, cell in enumerate(cells):
                source = "".join(cell["source"])
                if cell["cell_type"] == "markdown":
                    parts.append(source)
                    continue
                said, image = run_cell(source, scope, f"{notebook.name}, cell {number}")
                parts.append(f"```py\n{source}\n```")
                parts += [f"```text\n{said.rstrip()}\n```"] * bool(said.strip())
                if image is not None:
                    file = f"{notebook.stem}-{number}.png"
                    (images / file).write_bytes(image)
                    parts.append(f"![Output of the cell above]({file})")
        finally:
            os.chdir(before)
    parts.insert(
        1, f"This page is a notebook, `docs/notebooks/{notebook.name}`, run on bundled images when the docs are built."
    )
    return "\n\n".join(parts) + "\n"


def main(only: list[str]) -> None:
    """Write the page of every notebook, or of those that are named."""
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        if not only or notebook.stem in only:
            notebook.with_suffix(".md").write_text(render(notebook, FOLDER), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
