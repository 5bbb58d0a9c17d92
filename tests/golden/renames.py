"""What was renamed since the golden data was recorded, old -> new. The recorded files stay as they are.

The table goes from a pattern of studies (`*`, `pets/*`, `ec/figure-8`) to names. All patterns that match a study count.
"""

# In the recorded outputs: file names, columns, keys, headings and texts. A name is replaced where it stands as a whole word;
# letters, digits and _ make a word, so that `test` is replaced in `test/accuracy` and stays in `test_own/accuracy`.
# Example: {"pets/*": {"test": "test_shifted"}}
SPLITS = {"test": "test_shifted", "test_own": "test_iid", "val_other": "val_shifted"}
RECOMPOSED = (
    "ec/figure-9ab",
    *(
        f"pets/{name}"
        for name in (
            "boxes", "compositions", "debiasing", "digits", "guides", "iccnn", "masks", "no-annotation", "reweighting",
            "views", "weights",
        )
    ),
)  # fmt: skip
TEXT: dict[str, dict[str, str]] = {
    "*": {"at_floor": "at_min", "rrr": "right_reasons", "arm": "variant", "Arm": "Variant"},
    "ec/figure-9*": {
        "guess": "pseudo_label",
        "guesses": "pseudo_labels",
        "right_guesses": "right_pseudo_labels",
    },
    "impactx/table-2": {
        "maps shap": "shap",
        "maps-shap": "shap",
        "maps wae": "wae",
        "maps-wae": "wae",
        "maps gradcam": "gradcam",
        "maps-gradcam": "gradcam",
        "abn-seed0": "ABN-seed0",
        "baseline-seed0": "Baseline-seed0",
        "impactx-seed0": "IMPACTX-seed0",
        "wae-seed0": "WAE-seed0",
        "impactx--grad-cam--single-stage-seed0": "IMPACTX__Grad-CAM__single_stage-seed0",
        "impactx--grad-cam-seed0": "IMPACTX__Grad-CAM-seed0",
        "impactx--lambda---0-seed0": "IMPACTX__lambda___0-seed0",
        "impactx--shuffled-maps-seed0": "IMPACTX__shuffled_maps-seed0",
    },
    **dict.fromkeys(RECOMPOSED, SPLITS),
}
