"""500 damaged or hostile folders: only our own errors, an unchanged model, and no code of the folder run."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import (
    BadCallError,
    CheckpointError,
    DamagedCheckpointError,
    FgadahatError,
    NewerFormatError,
    SpecError,
    StateMismatchError,
    TraceError,
)
from tests.support.saving import Net, StopError, bits, learn, stop_after
from tests.support.small import snapshot

COUNT = 500
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2, 10**30, 1e300, "", "x", "../../etc/passwd", "/etc/passwd", "session-0123456789abcdef", [], {},
    [[]], {"$": "tensor", "key": "gone"}, {"$": "tuple", "items": 5}, {"$": "exec", "code": "1"}, {"$": []},
    {"$": "bits", "key": "state.tasks.0.masks.0", "shape": [10**12, 10**12]}, {"$": "dict", "items": [[[], 1]]},
    {"$": "complex", "key": "model.0.weight"}, {"$": "float", "value": "nan"}, {"$": "array", "of": 1, "scalar": True},
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a session in the middle of its second task."""
    folder = tmp_path_factory.mktemp("saved")
    with suppress(StopError):
        learn(folder, stop_after(10))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of another save of the same model."""
    folder = tmp_path_factory.mktemp("other")
    with suppress(StopError):
        learn(folder, stop_after(3))
    return folder


# ------------------------------------------------------------------ how a folder is damaged
def one_file(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(folder.iterdir()))


def flip(folder: Path, draw: random.Random, _: Path) -> None:
    file = one_file(folder, draw)
    raw = bytearray(file.read_bytes())
    for _number in range(draw.choice((1, 1, 5))):
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    file.write_bytes(raw)


def truncate(folder: Path, draw: random.Random, _: Path) -> None:
    file = one_file(folder, draw)
    raw = file.read_bytes()
    file.write_bytes(raw[: draw.choice((0, 1, draw.randrange(len(raw))))])


def lengthen(folder: Path, draw: random.Random, _: Path) -> None:
    file = one_file(folder, draw)
    file.write_bytes(file.read_bytes() + draw.randbytes(draw.choice((1, 4096))))


def remove(folder: Path, draw: random.Random, _: Path) -> None:
    one_file(folder, draw).unlink()


def swap(folder: Path, draw: random.Random, other: Path) -> None:
    """Put another save's file in under the name of this one's, or exchange two files."""
    kind = draw.choice(("session", "extra", "manifest", "both"))
    if kind == "both":
        first, second = next(folder.glob("session-*")), next(folder.glob("extra-*"))
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b)
        second.write_bytes(a)
    else:
        shutil.copyfile(next(other.glob(f"{kind}*")), next(folder.glob(f"{kind}*")))


def link(folder: Path, draw: random.Random, other: Path) -> None:
    """Let a file be a link to the same bytes elsewhere, or a folder."""
    file = one_file(folder, draw)
    kept = other.parent / f"{file.name}.kept"
    shutil.copyfile(file, kept)
    file.unlink()
    if draw.random() < 0.5:
        file.symlink_to(kept)
    else:
        file.mkdir()


def edit(folder: Path, draw: random.Random, _: Path) -> None:
    """Change the manifest's values without its checksum."""
    rewrite(folder, lambda content: mutate(content, draw))


def forge(folder: Path, draw: random.Random, _: Path) -> None:
    """Change the manifest's values, and its checksum with them."""
    rewrite(folder, lambda content: mutate(content, draw), sign=True)


def text(folder: Path, draw: random.Random, _: Path) -> None:
    """Put text into the manifest that is no JSON, or more than JSON's usual."""
    file = folder / "manifest.json"
    old = file.read_text()
    place = draw.randrange(len(old))
    bad = ("1e999", "NaN", "-Infinity", "[" * 5000, "1" * 5000, "\x00", '"\\ud800"', '{"a": 1, "a": 2}', "}", "'", "é")
    new = draw.choice(bad)
    pieces = (new, old.replace("0", new, 1), old[:place] + new + old[place:], f"[{new}]", '{"a":' * 3000)
    file.write_text(draw.choice(pieces), encoding="utf-8", errors="surrogatepass")


DAMAGES: tuple[Callable[[Path, random.Random, Path], None], ...] = (
    flip, truncate, lengthen, remove, swap, link, edit, forge, forge, forge, text,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give every place of nested values as its holder and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from places(part)


def mutate(content: dict[str, Any], draw: random.Random) -> None:
    every = list(places(content))
    for _ in range(draw.choice((1, 1, 3))):
        holder, key = draw.choice(every)
        kind = draw.randrange(4)
        if kind == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        elif kind == 1:
            holder[key] = copy.deepcopy(draw.choice([h[k] for h, k in every if k in h or isinstance(h, list)]))
        elif kind == 2 and isinstance(holder, dict):
            holder["more"] = 1
        else:
            holder[key] = copy.deepcopy(draw.choice(HOSTILE))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = False) -> None:
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    with suppress(IndexError, KeyError):  # a place that an earlier change took away
        change(content)
    if sign:
        body = {key: value for key, value in content.items() if key != "sha256"}
        raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        content["sha256"] = hashlib.sha256(raw).hexdigest()
    file.write_text(json.dumps(content))


# ------------------------------------------------------------------ what must hold
def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("something of a folder would be run")


def untouched(model: nn.Module, before: dict[str, Tensor]) -> bool:
    after = model.state_dict()
    same = list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    return same and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("part", range(5))
def test_damaged_folders_raise_our_errors_and_change_nothing(
    saved: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    for owner, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    model, right = Net(classes=5), bits(fh.load(Net(), saved))
    before, kinds, whole = snapshot(model), set(), 0
    for seed in range(part * COUNT // 5, (part + 1) * COUNT // 5):
        draw, folder = random.Random(seed), tmp_path / "damaged"  # noqa: S311
        shutil.copytree(saved, folder)
        damage = DAMAGES[seed % len(DAMAGES)]
        damage(folder, draw, other)
        try:
            session = fh.load(model, folder)
        except FgadahatError as error:
            kinds.add(type(error))
            assert untouched(model, before), (seed, damage.__name__)
        else:
            whole += 1
            assert damage is forge or bits(session) == right, (seed, damage.__name__)
            session.detach()
            model = Net(classes=5)
            before = snapshot(model)
        shutil.rmtree(folder)
    documented = {
        CheckpointError,
        DamagedCheckpointError,
        NewerFormatError,
        StateMismatchError,
        SpecError,
        BadCallError,
        TraceError,
    }
    assert kinds <= documented
    assert whole <= COUNT // 10  # of the forged ones, those whose change is harmless


def tampered(saved: Path, folder: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> Path:
    shutil.copytree(saved, folder)
    rewrite(folder, change, sign=sign)
    return folder


def set_at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (set_at("version", value=2), NewerFormatError, "Read it with the release that wrote it"),
        (set_at("version", value=0), DamagedCheckpointError, "version: Input should be 1"),
        (set_at("format", value="other"), CheckpointError, "the file is something else"),
        (set_at("session", "file", "name", value="../x.safetensors"), DamagedCheckpointError, "session.file.name"),
        (set_at("session", "file", "name", value="/etc/x.safetensors"), DamagedCheckpointError, "session.file.name"),
        (set_at("session", "file", "size", value=10**20), DamagedCheckpointError, "bytes, and 1000"),
        (set_at("spec", "norms", value="no"), SpecError, "norms: expected one of"),
        (set_at("session", "state", "running", "steps", value=-1), StateMismatchError, "running.steps"),
        (set_at("session", "state", "tasks", 0, "masks", value={}), StateMismatchError, "masks of task 'birds'"),
        (set_at("session", "model", value={}), DamagedCheckpointError, "13 are missing or do not fit"),
    ],
)
def test_what_is_wrong_is_named(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> None:
    model = Net()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        fh.load(model, tampered(saved, tmp_path / "x", change))
    assert untouched(model, before)


def test_a_change_without_the_checksum_is_seen(saved: Path, tmp_path: Path) -> None:
    folder = tampered(saved, tmp_path / "x", set_at("session", "state", "running", "scale", value=1.0), sign=False)
    with pytest.raises(DamagedCheckpointError, match="does not match its checksum"):
        fh.load(Net(), folder)


def test_all_damaged_files_are_named_at_once(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(saved, folder)
    session, extra = next(folder.glob("session-*")), next(folder.glob("extra-*"))
    session.write_bytes(session.read_bytes()[:-1])
    extra.unlink()
    with pytest.raises(DamagedCheckpointError) as caught:
        fh.load(Net(), folder)
    assert f"'{session.name}' has" in str(caught.value)
    assert f"'{extra.name}' is missing" in str(caught.value)


def test_deep_values_are_refused_at_the_save(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(BadCallError, match="nested more than 60 deep"):
        fh.attach(Net(), {}, torch.zeros(2, 6)).save(tmp_path / "x", {"deep": deep})
