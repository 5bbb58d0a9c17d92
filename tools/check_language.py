"""Count phrases that are hard to read: `python tools/check_language.py`. The counts may only fall (tools/language_counts.json).

A line counts once for each pattern that it has. `--lines` prints every line with its pattern and what to say instead;
`--record` writes lower counts.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTS = Path(__file__).with_name("language_counts.json")
AREAS = {
    "README": ("README.md",),
    "docs": ("docs/**/*.md",),
    "src": ("src/**/*.py", "src/**/*.j2", "src/**/*.html", "src/**/*.yaml"),
}
IGNORED = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
GENERATED = {ROOT / name.strip("/") for name in IGNORED if name.startswith("/docs/")}
THINGS = (
    "figure|mean|proof|number|buffer|kernel|place|store|file|map|mask|image|picture|grid|box|vote|part|model|evidence|module"
    "|array|COCO"
)
ONE = (
    "one|row|line|dot|score|map|label|pass|forwards?|backwards?|tail|bit|vote|value|box|mask|entry|number|images?|samples?"
    "|milliseconds"
)
EACH = (
    "image|class|channel|pixel|row|side|epoch|pass|vote|pair|trial|window|copy|sample|iteration|round|column|split|seed|run"
    "|step|value|breed"
)
PATTERNS = {  # pattern -> what to say instead
    r"(to|cannot|can still) be had": "available; cannot be loaded",
    r"\b[Rr]ooms?\b|_ROOMS": "package, module",
    r"\b[Aa]t hand\b": "available",
    r"\b(go|goes|went|gone|going) on\b": "continue, resume",
    r"\bgiven again\b|\basked for again\b": "run again",
    r"\banew\b|\bafresh\b": "again; from scratch",
    r"without a word": "silently",
    rf"\b(is|are|was|were) no ({THINGS})": "is not a ...",
    rf"\b({ONE}) an? ({EACH})\b": "one per image",
    r"\bas (it|they) (is|are|was|were|stands?|lies?)\b": "unchanged",
    r"\b[Ww]hoever\b|\bWho looks\b": "if you ...; a model that ...",
    r"\b[Ww]hatever\b": "any; regardless of",
    r"\b[Bb]eside\b": "next to; in addition to; compared with",
    r"\b(lie|lies|lay|lying)\b": "is (located)",
    r"\balike\b": "equally; similar",
    r"\bbut for\b|\b[Nn]othing but\b|\blast but one\b": "except; only; second to last",
    r"\b(says?|said|speaks?|tells?|told) (so|itself|of|for)\b": "reports, states, raises",
    r"\bcan(not)? be told\b|\btold (from|apart)\b": "cannot be distinguished",
    r"\bin (the )?place of\b": "instead of",
    r"\bset (beside|against)\b|\bheld against\b": "compared with",
    r"\b[Rr]ivals?\b": "baseline, alternative",
    r"\b[Cc]heat(s|ing)?\b|\b[Hh]onest\b": "shortcut model; robust model",
    r"\bverbs?\b": "command",
    r"\bfigures?\b(?![-.]\w)": "value, number (keep it for plots)",  # an item `figure-3` and a file figure.png do not count
    r"\bpictures?\b|\bphotographs?\b": "image",
    r"\b(minds|listens?|speaks?|hears?|[Hh]ear)\b": "is affected by; uses; hook",
    r"\b(seeks? out|sought|astray|flattered|slighted)\b": "select",
    r"\bless (that|the|its|correctness)\b|\b1 less\b": "minus",
    r"\bfor certain\b": "significantly (95 % CI)",
    r"\bsettled?s?\b": "significant, conclusive",
    r"\bthe (least|greatest)\b": "smallest, largest",
    r"\bof (one's|its|our|their) own\b": "its own; custom",
    r"\bown (scenes|backgrounds)\b|_own\b": "in-distribution, matched",
    r"\b(gives?|giving|given) .{0,25}away\b": "predicts, reveals",
    r"\bweighs? (nothing|more|less|the)\b|\bheavy\b|\bheavier\b": "has weight 0; gets more weight",
    r"\b[Rr]efuse[sd]?\b": "reject, raise",
    r"\b[Ww]ays? to (choose|weigh|train)\b|\ba way of\b": "strategy, method",
    r"\b(so|such) that\b": "so; therefore (in a new sentence)",
    r"\bthat is (there|here)\b|\bthere is of\b|\bnot there\b": "exists; missing",
    r"\bif need be\b|\bfor want of\b|\bas good as\b|\bas far as\b": "if needed; without; almost",
}


def files(area: str) -> list[Path]:
    """Return the files of an area, without generated pages."""
    found = (path for pattern in AREAS[area] for path in ROOT.glob(pattern))
    return sorted(set(found) - GENERATED)


def hits(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the pattern of each hit in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in PATTERNS:
            if re.search(pattern, line):
                yield number, pattern


def count(area: str, show: bool = False) -> int:
    """Return the number of hits in an area."""
    total = 0
    for path in files(area):
        for number, pattern in hits(path.read_text(encoding="utf-8")):
            total += 1
            if show:
                print(f"{path.relative_to(ROOT)}:{number}: {pattern} -> {PATTERNS[pattern]}")
    return total


def main(arguments: list[str]) -> int:
    """Compare the counts with the recorded ones; 1 if one is higher."""
    recorded = json.loads(COUNTS.read_text())
    found = {area: count(area, show="--lines" in arguments) for area in AREAS}
    higher = {area: number for area, number in found.items() if number > recorded[area]}
    for area, number in higher.items():
        print(f"{area} has {number} hard phrases; at most {recorded[area]} are allowed (--lines prints them)")
    if "--record" in arguments:
        lower = {area: min(number, recorded[area]) for area, number in found.items()}
        COUNTS.write_text(json.dumps(lower, indent=2) + "\n")
    return bool(higher)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
