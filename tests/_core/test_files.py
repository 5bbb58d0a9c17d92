import errno
import multiprocessing
import os
import sys
import threading

import pytest

from sightline._core.files import (
    clear_left_over,
    is_new,
    make_folder,
    replacing_file,
    replacing_folder,
    write_atomically,
    writing,
)
from sightline.errors import UnwritableError


def test_writers_of_one_file_at_once_never_show_a_torn_file(tmp_path):
    """Each writer writes one letter many times. Whatever is read is one letter alone."""
    path, letters, stop = tmp_path / "file", "abcd", threading.Event()
    write_atomically(path, b"a" * 200_000)
    torn: list[set[int]] = []

    def read() -> None:
        while not stop.is_set():
            content = path.read_bytes()
            if len(content) != 200_000 or len(set(content)) != 1:
                torn.append(set(content))

    def write(letter: str) -> None:
        for _ in range(15):
            write_atomically(path, letter.encode() * 200_000)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(letter,)) for letter in letters]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert not torn
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file", "file.tar.gz", ".hidden", "x" * 240 + ".csv", "ü" * 100 + ".csv"])
def test_files_with_any_name_are_written(tmp_path, name):
    write_atomically(tmp_path / name, b"1")
    write_atomically(tmp_path / name, b"2")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: b"2"}


def interrupt(temporary):
    assert temporary.suffix == ".png"
    temporary.write_bytes(b"half")
    raise KeyboardInterrupt


def fill_up(temporary):
    (temporary / "3").touch()
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.png"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing_file(path) as temporary:
        interrupt(temporary)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"file.png": b"old"}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EROFS, "Read-only file system; name another output"),
        (errno.EACCES, "Permission denied; name another output"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_writing_that_the_system_rejects_is_one_error_that_names_the_file(tmp_path, number, words):
    with pytest.raises(UnwritableError, match=f"cannot write {tmp_path}/file: {words}"), writing(tmp_path / "file"):
        raise OSError(number, os.strerror(number), "some temporary name")


def test_writing_into_a_removed_folder_or_below_a_file_raises(tmp_path):
    with pytest.raises(
        UnwritableError, match=r"cannot write .*gone/file: .*; its folder does not exist, or was removed"
    ):
        write_atomically(tmp_path / "gone" / "file", b"1")
    (tmp_path / "file").touch()
    for action in (
        lambda: write_atomically(tmp_path / "file" / "a", b"1"),
        lambda: make_folder(tmp_path / "file" / "b"),
    ):
        with pytest.raises(
            UnwritableError, match=r"cannot write .*file/[ab]: Not a directory; a part of the path is a"
        ):
            action()


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "folder.v1"
    for number in (1, 2):
        with replacing_folder(folder) as temporary:
            (temporary / "inside").mkdir()
            (temporary / "inside" / str(number)).touch()
    assert [file.name for file in (folder / "inside").iterdir()] == ["2"]
    with pytest.raises(UnwritableError, match="No space"), replacing_folder(folder) as temporary:
        fill_up(temporary)
    assert [file.name for file in (folder / "inside").iterdir()] == ["2"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("made", [True, False])
def test_a_link_to_a_folder_stays_and_its_folder_is_replaced(tmp_path, made):
    link, target = tmp_path / "link", tmp_path / "disk" / "target"
    if made:
        target.mkdir(parents=True)
        (target / "old").touch()
    link.symlink_to(target)
    with replacing_folder(link) as temporary:
        (temporary / "new").touch()
    assert link.is_symlink()
    assert list(target.iterdir()) == [target / "new"]
    assert list((tmp_path / "disk").iterdir()) == [target]


def _killed_while_replacing(folder, event):
    def kill(name, args):
        if name == event and str(args[1 if event == "os.rename" else 0]).endswith(folder.name):
            os._exit(9)

    sys.addaudithook(kill)
    with replacing_folder(folder) as temporary:
        (temporary / "new").touch()


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    child = multiprocessing.get_context("fork").Process(target=_killed_while_replacing, args=(folder, "os.rename"))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not folder.exists()
    clear_left_over(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")} == {"folder", "folder/old"}


def test_files_of_killed_processes_are_cleared_and_no_others(tmp_path):
    kept = ["a.tmp", ".mine.tmp", ".config.old", "sub/b.csv", "other/.b.0123456789ab.tmp.csv"]
    left = [".a.0123456789ab.tmp", ".b.0123456789ab.tmp.csv", "sub/.c.0123456789ab.tmp.png", ".d.0123456789ab.tmp/x"]
    for name in (*kept, *left, "other/.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear_left_over(tmp_path)
    found = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {*kept, "other/.lock"}  # a process that holds `other` may be writing there


def test_a_folder_without_anything_of_value_is_new(tmp_path):
    assert is_new(tmp_path / "none")
    assert is_new(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in (".lock", ".recipe.0123456789ab.tmp.yaml", "checkpoints/.last.0123456789ab.tmp.safetensors"):
        (tmp_path / name).touch()
    assert is_new(tmp_path)
    (tmp_path / "checkpoints" / "last.safetensors").touch()
    assert not is_new(tmp_path)
    assert is_new(tmp_path, without=("checkpoints",))
    (tmp_path / "file").touch()
    assert not is_new(tmp_path / "file")
