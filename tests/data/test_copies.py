"""Paths of equal content: links, equal bytes, and what only looks alike."""

import os
from pathlib import Path

from sightline.data.copies import find_copies


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_one_file_by_many_paths_and_files_of_equal_bytes(tmp_path: Path) -> None:
    long = os.urandom(50_000)
    a = write(tmp_path / "a", long)
    equal = write(tmp_path / "deeper/b", long)
    late = write(tmp_path / "late", long[:-1] + bytes([long[-1] ^ 1]))  # differs in its last byte
    early = write(tmp_path / "early", bytes([long[0] ^ 1]) + long[1:])
    small = write(tmp_path / "small", b"x")
    link, hard = tmp_path / "link", tmp_path / "small too"
    link.symlink_to(a)
    os.link(small, hard)
    around = tmp_path / "deeper" / ".." / "late"
    paths = [equal, link, late, early, hard, small, a, around]
    assert find_copies(paths) == {equal: a, link: a, a: a, small: small, hard: small, late: late, around: late}
    assert find_copies([a, late, early]) == {}
    assert find_copies([a, a]) == {}  # one path


def test_empty_and_missing_files_are_no_copies(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, b"") for name in "ab"]
    assert find_copies([*paths, tmp_path / "absent", tmp_path / "gone"]) == {}
