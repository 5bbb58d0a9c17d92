"""What was renamed since the golden data was recorded, old -> new. The recorded files stay as they are.

The table goes from a pattern of studies (`*`, `pets/*`, `ec/figure-8`) to names. All patterns that match a study count.
"""

# In the recorded outputs: file names, columns, keys, headings and texts. A name is replaced where it stands as a whole word;
# letters, digits and _ make a word, so that `test` is replaced in `test/accuracy` and stays in `test_own/accuracy`.
# Example: {"pets/*": {"test": "test_shifted"}}
TEXT: dict[str, dict[str, str]] = {}
