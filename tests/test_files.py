"""A file is replaced whole or not at all, and remains what it was."""

import os
import stat
import threading

import pytest

from budget import files
from budget.__main__ import main
from budget.files import replace


def rights(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_file_has_the_rights_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        replace(str(tmp_path / "new"), "text")
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_text() == "text"
    assert rights(tmp_path / "new") == 0o640


def test_an_old_file_keeps_its_rights(tmp_path):
    old = tmp_path / "old"
    old.write_text("before")
    old.chmod(0o664)
    replace(str(old), "after")
    assert (old.read_text(), rights(old), os.listdir(tmp_path)) == ("after", 0o664, ["old"])


def test_a_link_leads_to_its_target(tmp_path):
    (tmp_path / "target").write_text("before")
    link = tmp_path / "link"
    link.symlink_to("target")
    assert main(["estimate", "mlp", "--output", str(link)]) == 0
    assert link.is_symlink() and "parameters" in (tmp_path / "target").read_text()


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=main, args=(["estimate", "mlp", "--output", str(pipe)],))
    writer.start()
    assert "parameters" in pipe.read_text()
    writer.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    old = tmp_path / "old"
    old.write_text("before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace(str(old), "after")
    assert (old.read_text(), os.listdir(tmp_path)) == ("before", ["old"])


def test_errors_are_one_line(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "none" / "file", "a\0b"):
        assert main(["estimate", "mlp", "--output", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("budget: --output: cannot write") and error.count("\n") == 1


def test_a_folder_that_is_not_there_is_called_by_the_user_s_path(tmp_path):
    path = tmp_path / "none" / "x.svg"
    with pytest.raises(FileNotFoundError, match=r"none.x\.svg'$"):
        files.replace(str(path), "x")


def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', "utf-8-sig")
    assert files.table("device", str(path)) == {"a": 1}
