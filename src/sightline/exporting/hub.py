"""An exported model on the Hugging Face Hub, with a model card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sightline._core.files import write_atomically
from sightline._core.optional import requires_extra
from sightline._core.reading import reading
from sightline.errors import SightlineError

CARD = "README.md"  # which the Hub shows as the model card


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    values: Mapping[str, float] | None = None,
    data: str | None = None,
    limits: Sequence[str] = (),
    license: str | None = None,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Write a model card into the folder of an exported model, and upload the folder to the Hugging Face Hub.

    Args:
        folder: what `export_model`, `export_run` or `sightline export` wrote.
        repo: `OWNER/NAME` on the Hub; made if it does not exist.
        values: what was measured, by metric, such as `{"accuracy": 0.91, "energy_in_mask": 0.64}`.
        data: what the values were measured on, in words, with the number of images.
        limits: what a user must know before using the model, one sentence each.
        license: its identifier on the Hub, such as "mit".
        private: whether a new repository is private.
        token: of the Hub; None = that of `hf auth login`.
        endpoint: address of the Hub; None = the public one, or the environment's HF_ENDPOINT.

    Returns:
        The address of the upload.

    Raises:
        SightlineError: the folder is no export, `repo` is no name, or the Hub rejects the upload; the card stays in the folder.
    """
    with requires_extra("hf", "push_to_hub"):
        from huggingface_hub import HfApi
    if len(parts := repo.split("/")) != 2 or not all(parts):
        raise SightlineError(f"repo is {repo!r}; expected OWNER/NAME, such as 'jane/pets-resnet18'")
    path = Path(folder)
    write_atomically(path / CARD, hub_card(path, values=values, data=data, limits=limits, license=license).encode())
    try:
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=path, commit_message="Model exported by sightline"))
    except Exception as error:  # of the network or of the Hub, in many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SightlineError(
            f"the Hub did not take {repo}: {reason}; the folder {path} is complete, with its card: check the name and "
            "`hf auth login`, then push again"
        ) from error


def hub_card(
    folder: str | Path,
    *,
    values: Mapping[str, float] | None = None,
    data: str | None = None,
    limits: Sequence[str] = (),
    license: str | None = None,
) -> str:
    """Return the model card of an exported model: what it is, how to load and feed it, what was measured, its limits.

    The arguments are those of `push_to_hub`.

    Raises:
        SightlineError: the folder has no `model.json` of an export.
    """
    path = Path(folder) / "model.json"
    with reading(path, "give the folder that `sightline export` wrote"):
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name, classes, files, load = (card[key] for key in ("name", "classes", "files", "load"))
    head: dict[str, Any] = {
        "library_name": card["library"] or "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "sightline"],
        **({"license": license} if license else {}),
    }
    sections = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---", f"# {name or 'An image classifier'}"]
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    size = " x ".join(str(side) for side in card["size"])
    sections += [
        f"A classifier of {len(classes)} classes: {shown}. Exported by sightline.",
        "## Input",
        f"Images of {size} pixels: {card['input']}. Mean {card['mean']}, standard deviation {card['std']}, for pixels in "
        "[0, 1].",
        "## How to load it",
    ]
    for form, lines in load.items():
        sections += [f"`{files[form]}`:", "```python\n" + "\n".join(lines) + "\n```"]
    if card["state_dict_needs"]:
        sections.append(f"The state dict needs {card['state_dict_needs']}.")
    if values:
        rows = "\n".join(f"| {metric} | {value:.4g} |" for metric, value in values.items())
        sections += [
            "## What was measured",
            *([f"On {data}."] if data else []),
            f"| metric | value |\n| --- | --- |\n{rows}",
        ]
    known = [*limits, "Accuracy does not show what the model looks at. Run `sightline diagnose` on images of your own."]
    sections += ["## Know before use", "\n".join(f"- {limit}" for limit in known)]
    return "\n\n".join(sections) + "\n"
