"""Files appear whole or not at all."""

import errno
import json
import os
import signal
import stat

import pytest
import torch
from planted import config
from safetensors import SafetensorError
from scipy.sparse import csr_matrix

from sae_rna import files as code
from sae_rna.cache import RunFolder
from sae_rna.extraction.stream import Standardiser
from sae_rna.files import one_sentence, try_writing, write_atomically, write_json, writing
from sae_rna.sae.autoencoder import Member, SparseAutoencoders
from sae_rna.sae.export import to_saelens
from sae_rna.sae.features import save_csr


def names(folder) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "file.txt"
    write_atomically(path, "old")
    write_atomically(path, b"older is better")
    assert path.read_text() == "older is better"

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        write_atomically(path, "half")
    assert path.read_text() == "older is better" and names(path.parent) == ["file.txt"]


def test_the_file_is_seen_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "file.txt"
    with writing(path) as temporary:
        temporary.write_text("first line\n")
        assert temporary.parent.parent == tmp_path and not path.exists()
    assert path.read_text() == "first line\n" and names(tmp_path) == ["file.txt"]


def test_an_error_inside_the_block_is_passed_on_and_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with writing(tmp_path / "file.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file.txt"
    with writing(path) as mine, writing(path) as other:
        mine.write_text("mine")
        other.write_text("the other's")
    assert path.read_text() == "mine"  # whose block ended last


def forked(action) -> int:
    """A process that does `action`."""
    if pid := os.fork():
        return pid
    try:
        action()
        os._exit(0)
    finally:
        os._exit(1)


def killed(action, number: int = 1):
    """Do `action` in a process that is killed where it would rename a file for the `number`-th time."""
    rename, calls = os.replace, []

    def kill(*places):
        calls.append(places)
        os.kill(os.getpid(), signal.SIGKILL) if len(calls) == number else rename(*places)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", kill)
        pid = forked(action)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_writer_leaves_nothing_once_its_command_is_given_again(tmp_path, number):
    files = ["a.csv", "b.csv", "c.safetensors"]

    def command():
        for name in files:
            with writing(tmp_path / name) as temporary:
                temporary.with_name(".tmp6XfA2b").touch()  # as a library writes, safetensors for one
                temporary.write_text(name)

    killed(command, number)
    assert len(names(tmp_path)) == number  # those that were written, and what the last writer left
    command()
    assert sorted(names(tmp_path)) == files


def test_temporaries_of_writers_that_may_be_alive_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "_MACHINE", "0" * 8)
    killed(lambda: write_atomically(tmp_path / "theirs", "half"))
    monkeypatch.undo()
    (theirs,) = names(tmp_path)  # of another machine, whose locks are not seen here
    (at_work, begun), (told, tell) = os.pipe(), os.pipe()

    def write_slowly():
        with writing(tmp_path / "slow") as temporary:
            os.write(begun, b".")
            os.read(told, 1)
            temporary.write_text("whole")

    pid = forked(write_slowly)
    os.read(at_work, 1)
    write_atomically(tmp_path / "quick", "")
    assert len(names(tmp_path)) == 3
    os.write(tell, b".")
    assert os.waitpid(pid, 0)[1] == 0 and (tmp_path / "slow").read_text() == "whole"
    assert sorted(names(tmp_path)) == sorted([theirs, "quick", "slow"])


def test_text_is_utf8_and_lines_end_as_they_were_given(tmp_path):
    write_atomically(tmp_path / "file.txt", "5′–3′\r\n")
    assert (tmp_path / "file.txt").read_bytes() == "5′–3′\r\n".encode()


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_the_mode_follows_the_umask_whatever_the_block_does(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with writing(tmp_path / "file.txt") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o400))  # a library's own way
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == mode


def test_json_is_whole_ends_with_a_line_and_refuses_what_is_none(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"layers": [1, 2], "name": "nano"})
    assert json.loads(path.read_text()) == {"layers": [1, 2], "name": "nano"} and path.read_text()[-1] == "\n"
    with pytest.raises(TypeError):
        write_json(path, {"layers": {1, 2}})
    assert json.loads(path.read_text())["layers"] == [1, 2]


def test_a_full_disk_is_said_with_the_files_name(tmp_path):
    path = tmp_path / "file.txt"
    with pytest.raises(OSError) as failed:
        with writing(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a file's handle has it
    assert one_sentence(failed.value) == f"{path}: No space left on device"


def test_writing_is_tried_and_leaves_what_was_there(tmp_path):
    write_atomically(tmp_path / "file.txt", "old")
    try_writing(tmp_path / "file.txt")
    try_writing(tmp_path / "new" / "file.txt")
    assert (tmp_path / "file.txt").read_text() == "old" and names(tmp_path) == ["file.txt"]
    (tmp_path / "new").mkdir()
    with pytest.raises(IsADirectoryError) as failed:
        try_writing(tmp_path / "new")
    assert (
        one_sentence(failed.value)
        == f"{tmp_path / 'new'}: a file is to be written here, and this is a folder"
    )
    with pytest.raises(NotADirectoryError):
        try_writing(tmp_path / "file.txt" / "more" / "file.txt")


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weights_features_and_exports_have_the_mode_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        one = config(members=(Member(1, 4),))
        stack = SparseAutoencoders(one, Standardiser(torch.zeros(1, one.width), torch.ones(1, one.width)))
        stack.save(tmp_path / "saved")
        to_saelens(stack, tmp_path / "exported")
        save_csr(csr_matrix((2, 3)), tmp_path / "features" / "layer-01.safetensors")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".safetensors", ".json"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(
            "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"
        ),  # pyarrow
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named_with_its_place_whatever_library_met_it(tmp_path, error):
    with pytest.raises(OSError) as full, writing(tmp_path / "file"):
        raise error
    assert one_sentence(full.value) == f"{tmp_path / 'file'}: No space left on device"
    with pytest.raises(OSError) as full:
        RunFolder(tmp_path).kept("work", {}, lambda _: exec("raise error", {"error": error}), code)
    assert one_sentence(full.value) == f"{tmp_path}: No space left on device" and full.value.errno == 28
