"""Small files, and what is none."""

import os
from pathlib import Path

import pytest

from watcher.runtime import small_file


def test_a_file_of_just_so_many_bytes_is_read_and_one_more_is_too_long(tmp_path):
    path = tmp_path / "file"
    for read in (small_file.read, small_file.read_once):
        path.write_bytes(b"x" * 1000)
        assert read(path, 1000) == b"x" * 1000
        path.write_bytes(b"x" * 1001)
        with pytest.raises(small_file.TooLong):
            read(path, 1000)


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert small_file.read(tmp_path / "link", 1) == b"x"


def test_a_pipe_a_device_and_a_folder_are_told_apart(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path / "pipe", small_file.Pipe),
        (Path("/dev/zero"), small_file.NotRegular),
        (tmp_path, IsADirectoryError),
        (tmp_path / "none", FileNotFoundError),
    ):
        with pytest.raises(OSError) as raised:
            small_file.read(path, 1000)
        assert type(raised.value) is kind
        assert str(path) in str(raised.value)
    with pytest.raises(ValueError, match="null"):
        small_file.read("a/\0", 1000)


def test_a_pipe_that_somebody_writes_to_is_none_either(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        os.write(descriptor, b"x")
        with pytest.raises(small_file.Pipe):
            small_file.read(tmp_path / "pipe", 1000)
    finally:
        os.close(descriptor)
