"""Bad arguments of commands, by command, and the files that they name."""

from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from verbs import RECIPE

import sightline
from sightline.training import train

MODEL = "--model sightline/lenet5 --weights {weights}"
MODELS = [  # of the commands that take a model or a run
    "", "--run {tmp}/none", "--run {empty}", "--run {image}", "--run", "--model nothing", "--model timm/nothing",
    "--model sightline/lenet5 --weights {tmp}/none.pth", "--model sightline/lenet5 --weights {binary}",
    "--model sightline/lenet5 --weights {empty}", "--run {run} --model sightline/lenet5", "--run {run} --nothing",
]  # fmt: skip
ARGUMENTS: dict[str, list[str]] = {
    "boxes": [
        "", "nothing", "squares --detector nothing", "squares --detector os:system", "squares --detector saliency",
        "squares --detector saliency --model nothing", "squares --detector saliency --run {tmp}/none",
        "squares --detector saliency --run {image}", "squares --detector saliency --model sightline/lenet5 --weights {binary}",
        "squares --detector annotations", "squares --detector annotations --set file={tmp}/none.json",
        "squares --detector annotations --set file={binary}", "squares --detector annotations --set nothing=1",
        "squares --detector annotations --set file", "squares images=x", "squares size", "squares --split nothing",
        "squares --detector lost --set nothing=x --weights {binary}", "squares --num-workers -1", "squares --num-workers x",
        "squares --detector saliency --run {run} -o {tmp}/boxes.txt", "squares --detector saliency --run {run} -o {tmp}",
    ],
    "diagnose": [
        *MODELS, "--run {run} --data nothing", "--run {run} --data squares images=x", "--run {run} --split nothing",
        "--run {run} --samples 0", "--run {run} --samples x", "--run {run} --annotation nothing",
        "--run {run} --boxes {tmp}/none.csv", "--run {run} --boxes {binary}", "--run {run} --explainer nothing",
        "--run {run} --layer nothing", "--run {run} --layer \u00b2", "--run {run} -o {tmp}",
        "--run {run} --annotation saliency --saliency-model nothing",
        f"{MODEL} --data folder root={{empty}}", f"{MODEL} --data folder", f"{MODEL}",
    ],
    "audit": [
        "", "nothing", *(f"squares {each}" for each in MODELS if each), "squares images=x --run {run}", "squares",
        "squares --run {run} --split nothing", "squares --run {run} --reference-explainer nothing",
        "squares --run {run} --iterations 0", "squares --run {run} --iterations x", "squares --run {run} --num-workers -1",
        "squares --run {run} -o {image}", "folder root={empty} --run {run}",
    ],
    "export": [
        "", "{run}", "{tmp}/none -o {tmp}/new", "{empty} -o {tmp}/new", "{image} -o {tmp}/new", "{run} -o {image}",
        "{run} -o {filled}", "{run} -o {tmp}/new --formats nothing", "{run} -o {tmp}/new --formats",
        "{run} -o {tmp}/new --formats state-dict,nothing", "{run} -o {tmp}/new --formats ,",
    ],
    "leaderboard": [
        "", "{tmp}/none", "{empty}", "{image}", "{run}", "{binary}", "{empty} {run}", "{broken}",
    ],
    "compare": [
        "", "{run}", "--against {run}", "{tmp}/none --against {run}", "{run} --against {tmp}/none", "{run} --against {empty}",
        "{image} --against {run}", "{run} --against {run} -o {tmp}", "{run} --against {broken}", "{run} --against",
    ],
    "filters": [
        *MODELS, "{image}", "{tmp}/none.png --run {run}", "{binary} --run {run}", "--run {run} --count 1",
        "--run {run} --count x",
        "--run {run} --layer nothing", "--run {run} --groups 1", "--run {run} --groups 100000", "--run {run} --filters x",
        "--run {run} --filters 99999", "--run {run} --filters -1", "--run {run} --filters \u00b2", "--run {run} --columns 0",
        "--run {run} --style nothing", "--run {run} --threshold x", "--run {run} --threshold 2", "--run {run} --threshold nan",
        "--run {run} --split nothing", "--run {run} --data nothing", "--run {run} -o {tmp}", "--run {run} -o {tmp}/grid.txt",
    ],
    "list": ["nothing", "--nothing", "models nothing", "\u00b2", "-1"],
    "reproduce": [
        "", "lots", "nothing table-1", "lots nothing", "lots table-5.3 --scale 0", "lots table-5.3 --scale 2",
        "lots table-5.3 --scale x", "lots table-5.3 --scale nan", "lots table-5.3 nothing=1", "lots table-5.3 seed",
        "lots table-5.3 --output {image}", "lots ../../x", "../so-loss table-1", "\u00b2 \u00b2",
    ],
    "sweep": [
        "", "nothing", "{binary}", "{empty}", "{tmp}/none.yaml", "{recipe}", "{recipe} --over seed", "{recipe} --over seed=1",
        "{recipe} --over seed=[]", "{recipe} --over nothing=[1,2]", "{recipe} --over stages.0.lr=[x,y]",
        "{recipe} --over stages.9.lr=[1,2]", "{recipe} --over seed={{low:1}}", "{recipe} --over seed={{low:2,high:1}}",
        "{recipe} --over seed=[1,2] --metric nothing", "{recipe} --over seed=[1,2] --metric test/accuracy",
        "{recipe} --over seed=[1,2] --sampler nothing", "{recipe} --over seed=[1,2] --trials 0",
        "{recipe} --over seed=[1,2] --seed -1", "{recipe} --over seed=[1,2] --name a/b",
        "{recipe} --over seed=[1,2] --storage nothing", "{recipe} --over seed=[1,2] --storage sqlite:///{tmp}/no/x.db",
        "{recipe} --over seed=[1,2] --output {image}", "{recipe} data.images=x --over seed=[1,2]",
        "{recipe} seed --over seed=[1,2]",
    ],
    "acquire": [
        "", "nothing", "{binary}", "{empty}", "{recipe} --strategy nothing", "{recipe} --strategy ,", "{recipe} --rounds 0",
        "{recipe} --seeds 0", "{recipe} --initial-fraction 0", "{recipe} --initial-fraction 2", "{recipe} --initial-fraction x",
        "{recipe} --step-fraction 0", "{recipe} --step-fraction nan", "{recipe} --columns nothing",
        "{recipe} --columns test/nothing", "{recipe} --columns nowhere/accuracy", "{recipe} --output {image}",
        "{recipe} data.images=x", "{recipe} seed", "{tmp}/none --next 2", "{empty} --next 2", "{run} --next 0",
        "{run} --next x",
        "{run} --next 2 --strategy nothing", "{run} --next 2 --pool {tmp}/none", "{run} --next 2 --pool {empty}",
        "{run} --next 2 --pool {image}", "{recipe} --next 2",
    ],
    "rate": [
        "-o {tmp}/new", "{tmp}/none -o {tmp}/new --explainers gradcam,eigencam", "{run} -o {tmp}/new",
        "{run} -o {tmp}/new --explainers nothing,gradcam", "{run} -o {tmp}/new --explainers gradcam",
        "{run} {run} -o {tmp}/new --explainers gradcam,eigencam", "{run} {run} {run} -o {tmp}/new",
        "{run} -o {image} --explainers gradcam,eigencam", "{run} -o {tmp}/new --explainers gradcam,eigencam --images 0",
        "{run} -o {tmp}/new --explainers gradcam,eigencam --split nothing", "-o {tmp}/new --results", "-o {empty} --results",
        "-o {broken} --results", "-o {tmp}/new --export-batch {tmp}/batch", "-o {tmp}/new --import-batch {tmp}/none.csv",
        "-o {broken} --import-batch {binary}", "{run} -o {tmp}/new --port 99999", "{run} -o {tmp}/new --port x",
        "{empty} -o {tmp}/new --explainers gradcam,eigencam", "{image} -o {tmp}/new --explainers gradcam,eigencam",
    ],
}  # fmt: skip
FOLDER = MODEL + " --size 32 --data {photos}"  # of `fix`
FIX = FOLDER + " --pretrained none"
SHORT = {"MODEL": MODEL, "FOLDER": FOLDER, "FIX": FIX}  # words that stand for these in the lines below
MORE: dict[str, list[str]] = {
    "boxes": [
        "squares --detector saliency --run {run} --set threshold=nan",
        "squares --detector saliency --run {run} --set threshold=2", "squares --detector annotations --set file={nan}",
        "squares --detector annotations --set file={swapped}", "squares --detector annotations --set file=3",
        "squares --detector saliency MODEL --std 0",
    ],
    "diagnose": [
        "--run {run} --preprocessing nothing", "--run {run} --source nothing", "--run {run} --source folder:x",
        "--run {run} --source folder:0", "--run {run} --source folder:99", "--run {run} --source {tmp}/none.csv:site",
        "--run {run} --source {swapped}:nothing", "--run {run} --source {swapped}:x1", "--run {run} --source :",
        "--run {run} --boxes {swapped}", "--run {run} --boxes {nan}", "MODEL --data folder root={photos} --mean nan,0,0",
        "MODEL --data folder root={photos} --std 0,0,0", "MODEL --data folder root={photos} --classes {three}",
    ],
    "audit": [
        "squares MODEL --mean nan", "squares MODEL --classes {three}", "squares MODEL --size 99999999",
        "squares --run {run} --mean 0.5",
    ],
    "export": [
        "{run} -o {tmp}/new --formats STATE-DICT", "{run} -o {image}/x",
    ],
    "compare": [
        "{weights} --against {weights}", "{run} {run} --against {run}", "{run} --against {weights}",
    ],
    "reproduce": [
        "lots figure-5.3 num_images=0", "lots figure-5.3 num_images=x", "lots figure-5.3 columns=[]",
        "lots figure-5.3 columns.99.options.iterations=3", "lots figure-5.3 model=3", "lots figure-5.3 data=3",
        "lots figure-5.3 abreast=0", "lots figure-5.3 seed=-1", "lots figure-5.3 --scale inf",
        "lots figure-5.3 --devices nothing", "lots figure-5.3 --devices ,", "lots figure-5.3 --search",
    ],
    "sweep": [
        "{recipe} --over seed=[1,2] --over seed=[3]", "{recipe} --over seed=[1,1]",
        "{recipe} --over seed=[1,2] --front nothing", "{recipe} --over seed=[1,2] --front energy_in_mask@nothing",
        "{recipe} --over stages=[[3]]", "{recipe} --over seed=[1,2] --storage x://y", "{recipe} --over batch_size=[4,x]",
    ],
    "acquire": [
        "{run} --next 2 --strategy random nothing=1", "{run} --next 2 --strategy random,random",
        "{run} --next 99999999 --strategy random", "{recipe} --strategy random,random",
        "{recipe} --strategy random --rounds 99", "{recipe} --initial-fraction nan", "{plan} seeds=[0,0]",
        "{plan} seeds=[-1]", "{plan} seeds=[]", "{plan} variants=[]", "{plan} variants=[random,random]", "{plan} columns=[]",
        "{plan} rounds=9999", "{plan} initial_fraction=.nan", "{plan} kind=nothing", "{plan} recipe=nothing.yaml",
    ],
    "rate": [
        "{run} -o {tmp}/new --explainers gradcam,gradcam --images 2",
        "{run} -o {tmp}/new --explainers gradcam,eigencam --images 2 --seed -1",
    ],
    "fix": [
        "", "--model nothing --data {photos} --found", "MODEL --data {tmp}/none --found", "MODEL --data {empty} --found",
        "MODEL --data {image} --found", "--model sightline/lenet5 --weights {binary} --data {photos} --found",
        "FOLDER --pretrained nothing --found", "FOLDER --pretrained {binary} --found",
        "FOLDER --pretrained timm/nothing --found", "FIX --found --mean nan", "FIX --found --mean 1,2",
        "FIX --found --mean x", "FIX --found --std 0", "FIX --found --std -1", "FIX --found --size 99999999",
        "FIX --found --size 0", "FIX --found --seed -1", "FIX --found --classes {three}", "FIX --found --classes {twice}",
        "FIX --found --classes {binary}", "FIX --found --masks {empty}", "FIX --found --boxes {swapped}",
        "FIX --found -o {image}", "FIX --found -o {filled}", "FIX --masks {tmp}/none", "FIX --masks {empty}",
        "FIX --masks {image}", "FIX --masks {small}", "FIX --masks {blank}", "FIX --masks {filled}",
        "FIX --boxes {tmp}/none.csv", "FIX --boxes {binary}", "FIX --boxes {nan}", "FIX --boxes {swapped}",
        "FIX --boxes {list}", "FIX --boxes {photos}", "FIX --boxes {image}", "FIX --avoid {tmp}/none",
        "FIX --avoid {filled}", "FIX --segmenter os:system", "FIX --segmenter nothing", "FIX --segmenter nothing:x",
        "FIX --port 99999", "FIX -o {marks}", "FIX -o {image}",
    ],
    "masks": [
        "folder root={photos} --center --threshold nan", "folder root={photos} --center --threshold 2",
        "folder root={photos} --center --distance nan", "folder root={photos} --center --distance -1",
        "folder root={photos} --center --split nothing", "folder root={photos} --center -o {image}",
        "folder root={photos} --center --run {run}", "folder root={photos} --center --boxes {tmp}/none.csv",
        "folder root={photos} --center --segmenter nothing", "folder root={photos} ", "folder root={photos} --boxes {nan}",
        "folder root={photos} --boxes {swapped}", "folder root={photos} --boxes {list}",
        "folder root={photos} --boxes {binary}", "folder root={photos} --maps {empty}",
        "folder root={photos} --maps {tmp}/none", "squares --run {run} --method nothing",
        "squares --run {run} --threshold nan", "squares --run {run} --distance inf", "export squares --to nothing",
        "export squares --threshold nan", "export squares -o {empty}", "export squares --to labelme -o {image}",
        "export folder root={photos}", "export squares --to heatmaps", "export squares --maps {empty}",
        "export squares --split nothing", "import {tmp}/none --from coco --images {photos}",
        "import {binary} --from coco --images {photos}", "import {list} --from coco --images {photos}",
        "import {list} --from label-studio --images {photos}", "import {list} --from cvat --images {photos}",
        "import {list} --from nothing --images {photos}", "import {xml} --from cvat --images {photos}",
        "import {empty} --from labelme --images {photos}", "import {list} --images {tmp}/none --from coco",
    ],
    "data": [
        "list nothing", "prepare", "prepare nothing", "check csv path={empty}", "check csv path={unlabelled}",
        "check csv path={swapped}", "check folder root={image}", "check folder root={photos} val=nan",
        "check coco root={empty}",
    ],
}  # fmt: skip
for command, lines in MORE.items():
    full = [" ".join(SHORT.get(word, word) for word in line.split()) for line in lines]
    ARGUMENTS[command] = [*ARGUMENTS.get(command, []), *full]

TEXTS = {
    "three.txt": "a\nb\nc\n",
    "twice.txt": "a\na\n",
    "nan.csv": "path,x1,y1,x2,y2\na/0.png,nan,0,5,5\n",
    "swapped.csv": "path,x1,y1,x2,y2\na/0.png,30,30,5,5\n",
    "unlabelled.csv": "path,label\nphotos/a/0.png,\n",
    "list.json": "[1, 2]",
    "xml.xml": "<annotations><image",
}


def make_files(folder: Path) -> dict[str, Path]:
    """Write the files, train a run, and return the path of each by its name in the lines."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "binary").write_bytes(bytes(range(256)) * 4)
    (folder / "empty").mkdir()
    (folder / "filled").mkdir()
    (folder / "filled" / "note.txt").write_text("mine")
    (folder / "broken").mkdir()
    for name in ("run.json", "study.yaml", "table.csv", "study.sqlite", "recipe.yaml"):
        (folder / "broken" / name).write_bytes(b"\xff{[" * 9)
    Image.new("RGB", (40, 40), "red").save(folder / "image.png")
    model, _ = sightline.load_model("sightline/lenet5", classes=2)
    save_file(model.state_dict(), folder / "weights.safetensors")
    torch.manual_seed(0)
    train(str(folder / "recipe.yaml"), [], folder / "run")
    draw = np.random.default_rng(0)
    for name in ("a/0", "a/1", "b/0", "b/1"):
        for place, pixels in (
            ("photos", draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)),
            ("small", np.full((3, 7), 255, np.uint8)),
            ("blank", np.zeros((40, 40), np.uint8)),
        ):
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{name}.png")
    (folder / "marks").mkdir()
    (folder / "marks" / "marks.sqlite").write_bytes(b"\xff{[" * 9)
    for name, content in TEXTS.items():
        (folder / name).write_text(content)
    plan = {"kind": "active_learning", "recipe": str(folder / "recipe.yaml"), "variants": ["random"], "seeds": [0]}
    (folder / "plan.yaml").write_text(yaml.safe_dump({**plan, "rounds": 2, "columns": ["test/accuracy"]}))
    texts = {Path(name).stem: name for name in TEXTS}
    names = texts | {
        "plan": "plan.yaml",
        "recipe": "recipe.yaml",
        "image": "image.png",
        "weights": "weights.safetensors",
    }
    return {
        n: folder / names.get(n, n)
        for n in ("binary", "empty", "filled", "broken", "run", "photos", "small", "blank", "marks", *names)
    }
