"""A disk that fills up, refuses, or is shared: the save before stays valid, and the error names the remedy."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fgadahat_hooks as fh
from fgadahat_hooks.checkpoint import folder as folders
from fgadahat_hooks.errors import CheckpointError, DamagedCheckpointError
from tests.support.saving import Net, StopError, bits, learn, stop_after

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits and locks")
not_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def partly(folder: Path) -> tuple[fh.Session, str]:
    """Return a session beyond its last save, and the bits of that save."""
    with suppress(StopError):
        learn(folder, stop_after(4))
    session = fh.load(Net(), folder)
    before = bits(session)
    session.roll_back()
    return session, before


# ------------------------------------------------------------------ a call that fails
CALLS = ("save_file", "sync", "sync_folder")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_disk_that_fails_leaves_the_save_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str, number: int
) -> None:
    session, before = partly(folder)
    real, count = getattr(folders, call), [0]

    def fail(*args: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            raise OSError(code, os.strerror(code))
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(folders, call, fail)
        if count_of(call) >= number:
            with pytest.raises(CheckpointError, match=os.strerror(code)):
                session.save(folder)
    after = bits(session) if (call, number) == ("sync_folder", 2) else before  # the new manifest is there by then
    if count_of(call) >= number:
        assert bits(fh.load(Net(), folder)) == after
        assert len(list(folder.iterdir())) == (5 if after != before else 3)
    session.save(folder)
    assert bits(fh.load(Net(), folder)) == bits(session)
    assert len(list(folder.iterdir())) == 3


def count_of(call: str) -> int:
    return {"save_file": 2, "sync": 3, "sync_folder": 2}[call]


def test_half_written_files_are_seen(folder: Path) -> None:
    partly(folder)
    file = next(folder.glob("session-*"))
    raw = file.read_bytes()
    for part in (0, len(raw) // 2, len(raw) - 1):
        file.write_bytes(raw[:part] + b"\0" * (len(raw) - part))
        with pytest.raises(DamagedCheckpointError, match="has other bytes than were written"):
            fh.load(Net(), folder)


# ------------------------------------------------------------------ permissions
@not_root
@posix
def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    session, before = partly(folder)
    folder.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="choose a folder that you may write to"):
            session.save(folder)
        assert bits(fh.load(Net(), folder)) == before
    finally:
        folder.chmod(0o700)


@not_root
@posix
@pytest.mark.parametrize("which", ["manifest.json", "session-*", "."])
def test_files_that_cannot_be_read(folder: Path, which: str) -> None:
    partly(folder)
    file = folder if which == "." else next(folder.glob(which))
    mode = file.stat().st_mode
    file.chmod(0)
    try:
        with pytest.raises(CheckpointError, match=r"Look at its permissions|Permission"):
            fh.load(Net(), folder)
    finally:
        file.chmod(mode)


@posix
def test_permissions_by_the_calls_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, `chmod` refuses nothing: here the system calls raise."""
    session, before = partly(folder)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    calls: tuple[tuple[Any, str, Callable[[], Any], str], ...] = (
        (Path, "mkdir", lambda: session.save(folder / "new"), "choose a folder that you may write to"),
        (os, "open", lambda: session.save(folder), "An earlier save there is still whole"),
        (folders, "digest", lambda: fh.load(Net(), folder), "Look at its permissions"),
        (Path, "read_bytes", lambda: fh.load(Net(), folder), "Look at its permissions"),
    )
    for owner, name, call, message in calls:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, refuse)
            with pytest.raises(CheckpointError, match=message):
                call()
    assert bits(fh.load(Net(), folder)) == before
