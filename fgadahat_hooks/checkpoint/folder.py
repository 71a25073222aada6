"""The files of a saved session: a crash while saving leaves the previous save valid; reading checks every file."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fgadahat_hooks.errors import CheckpointError, DamagedCheckpointError

MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 30
FILE_NAME = r"^(session|extra)-[0-9a-f]{16}\.safetensors$"
"""File names that a manifest may refer to: inside the folder, and of the form that `session.save` writes."""
_OWN_FILES = re.compile(rf"{FILE_NAME}|^manifest-[0-9a-f]{{16}}\.tmp$")
_CHUNK = 1 << 20


class Written(NamedTuple):
    """A file on disk: its name, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


class Saving:
    """One save: writes new files, replaces the manifest atomically, then removes the old files.

    Attributes:
        id: Sixteen random hexadecimal digits that identify the save.
    """

    def __init__(self, folder: Path) -> None:
        """Write nothing yet."""
        self.id = secrets.token_hex(8)
        self._folder = folder
        self._new: list[str] = []

    def write_tensors(self, part: str, tensors: Mapping[str, Tensor]) -> Written:
        """Write a file of tensors and flush it to disk."""
        name = f"{part}-{self.id}.safetensors"
        self._new.append(name)
        (self._folder / name).touch(exist_ok=False)
        mode = (self._folder / name).stat().st_mode  # that of the user's umask; safetensors sets a stricter one
        save_file(dict(tensors), self._folder / name)
        (self._folder / name).chmod(mode)
        sync(self._folder / name)
        return Written(name, (self._folder / name).stat().st_size, digest(self._folder / name))

    def commit(self, manifest: bytes) -> None:
        """Replace the manifest; until that moment the old save is the valid one."""
        name = f"manifest-{self.id}.tmp"
        self._new.append(name)
        with (self._folder / name).open("wb") as file:
            file.write(manifest)
        sync(self._folder / name)
        sync_folder(self._folder)
        for new in self._new:
            (self._folder / new).stat()  # raises if another process has removed it
        (self._folder / name).replace(self._folder / MANIFEST)
        sync_folder(self._folder)

    def remove_old_files(self, keep: set[str]) -> None:
        """Remove the files that the manifest does not name: those of the previous save and of interrupted ones."""
        for file in self._folder.iterdir():
            if _OWN_FILES.match(file.name) and file.name not in keep:
                with suppress(OSError):
                    file.unlink()

    def discard(self) -> None:
        """Remove what this save has written, unless its manifest is already in place: then it is the valid save."""
        with suppress(OSError):
            if self.id.encode() in (self._folder / MANIFEST).read_bytes():
                return
        for name in self._new:
            with suppress(OSError):
                (self._folder / name).unlink()


@contextmanager
def saving(folder: Path) -> Iterator[Saving]:
    """Create the folder and lock it for one save; remove what the block has written if it raises.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, exclusive=True):
            save = Saving(folder)
            try:
                yield save
            except BaseException:
                save.discard()
                raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Expected to write into the folder {str(folder)!r}, but got {type(error).__name__}: {error}. An earlier "
            "save there is still whole. Free some space, or choose a folder that you may write to."
        ) from error


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Lock the folder against saves while it is read.

    Raises:
        CheckpointError: It is no folder, or cannot be read.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"Expected {str(folder)!r} to be the folder of a saved session, but found {what} there.")
    try:
        with _locked(folder, exclusive=False):
            yield
    except OSError as error:
        raise CheckpointError(
            f"Expected to read the folder {str(folder)!r}, but got {type(error).__name__}: {error}. Nothing was "
            "changed. Look at its permissions."
        ) from error


@contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on the folder itself, released when the process ends. There is none on Windows."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def sync(file: Path) -> None:
    """Flush a file to disk."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk; does nothing on Windows."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ------------------------------------------------------------------ reading
def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def read_manifest(folder: Path) -> bytes:
    """Return the bytes of the manifest.

    Raises:
        CheckpointError: There is no manifest.
        DamagedCheckpointError: It is not a regular file, or too large.
    """
    file = folder / MANIFEST
    try:
        found = file.lstat()
    except FileNotFoundError:
        raise CheckpointError(
            f"Expected {MANIFEST} in {str(folder)!r}, but found none. Choose the folder that `session.save` wrote; a "
            "first save that was interrupted leaves none."
        ) from None
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_MANIFEST:
        raise DamagedCheckpointError(
            f"Expected {MANIFEST} to be a plain file of at most {MAX_MANIFEST} bytes, but it is not. Nothing was "
            "changed. Take another copy of the folder."
        )
    return file.read_bytes()


def file_problem(folder: Path, expected: Written) -> str | None:
    """Return what is wrong with a file that a manifest names, None if nothing is."""
    file = folder / expected.name
    try:
        found = file.lstat()
    except FileNotFoundError:
        return f"'{expected.name}' is missing"
    if not stat.S_ISREG(found.st_mode):
        return f"'{expected.name}' is no plain file"
    if found.st_size != expected.size:
        return f"'{expected.name}' has {found.st_size} bytes, and {expected.size} were written"
    return None if digest(file) == expected.sha256 else f"'{expected.name}' has other bytes than were written"


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU, each in its own memory.

    Raises:
        DamagedCheckpointError: It is not a safetensors file.
    """
    try:
        with safe_open(folder / name, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118  # it is not a dict
    except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DamagedCheckpointError(
            f"Expected '{name}' to be a file of tensors, but it is not ({error}). Nothing was changed. Take another "
            "copy of the folder."
        ) from error
