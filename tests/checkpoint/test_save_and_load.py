"""`session.save` and `fh.load`: everything is restored from the constructor and the folder alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import (
    AlreadyAttachedError,
    BadCallError,
    CheckpointError,
    DetachedError,
    NoTaskError,
    StateMismatchError,
)
from tests.support.saving import SPEC, TASKS, Net, StopError, bits, example, learn, stop_after
from tests.support.small import snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the bits at the end of an uninterrupted run."""
    return bits(learn(tmp_path_factory.mktemp("whole")))


def files(folder: Path) -> list[str]:
    return sorted(file.name.partition("-")[0] for file in folder.iterdir())


def stopped(folder: Path, saves: int) -> None:
    with suppress(StopError):
        learn(folder, stop_after(saves))


# ------------------------------------------------------------------ everything is restored
def test_finished_tasks_are_restored_to_the_bit(folder: Path) -> None:
    session = learn(folder)
    model = Net()
    loaded = fh.load(model, folder)
    assert loaded.model is model
    assert loaded.tasks == session.tasks == tuple(name for name, _ in TASKS)
    assert loaded.interrupted is None
    assert bits(loaded) == bits(session)
    x = torch.randn(5, 6)
    for task in session.tasks:
        with torch.no_grad(), session.use(task), loaded.use(task):
            assert torch.equal(session.model.eval()(x), model.eval()(x))
    assert files(folder) == ["extra", "manifest.json", "session"]
    loaded.verify()


@pytest.mark.parametrize("classes", [3, 4, 9])
def test_the_head_may_have_any_size_in_the_constructor(folder: Path, classes: int) -> None:
    session = learn(folder)
    loaded = fh.load(Net(classes=classes), folder)
    assert bits(loaded) == bits(session)
    head = loaded.model.get_submodule("6")
    assert head.out_features == 4
    assert head.get_parameter("weight").shape == (4, 8)
    with loaded.task("another") as task:
        assert head.out_features == 3
        task.anneal(1, 1)


@pytest.mark.parametrize("saves", [1, 2, 3, 4, 6, 7, 8, 10, 13])
def test_an_interrupted_loop_ends_with_the_same_bits(folder: Path, uninterrupted: str, saves: int) -> None:
    stopped(folder, saves)
    assert bits(learn(folder)) == uninterrupted


def test_the_comparison_can_fail(folder: Path, uninterrupted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(folder, 4)
    monkeypatch.setattr(fh.Session, "restore", lambda *_: {})
    assert bits(learn(folder)) != uninterrupted


def test_shared_tensors_are_stored_once_and_shared_again(folder: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.hidden = nn.Linear(4, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.hidden(self.embed(x)).relu())  # type: ignore[no-any-return]

    spec = {"rest": "share", "gates": {"targets": ["hidden"]}, "heads": {"mode": "shared", "names": ["head"]}}
    session = fh.attach(Tied(), {**spec, "adjustment": {"mode": "hat"}}, torch.zeros(1, dtype=torch.long))
    for task in ("a", "b"):
        with session.task(task) as running:
            running.anneal(1, 1)
    session.save(folder)
    text = (folder / "manifest.json").read_text()
    assert '"key": "model.embed.weight"' in text
    assert '"key": "model.head.weight"' not in text
    loaded = fh.load(Tied(), folder)
    assert loaded.model.get_parameter("head.weight") is loaded.model.get_parameter("embed.weight")
    assert bits(loaded) == bits(session)
    loose = Tied()
    loose.head.weight = nn.Parameter(torch.zeros(5, 4))
    with pytest.raises(StateMismatchError, match=r"tied in the model: nothing; in the save: \[\['embed.weight'"):
        fh.load(loose, folder)


def test_masks_are_stored_as_bits(folder: Path) -> None:
    sizes = []
    for tasks in (1, 11):
        session = fh.attach(
            nn.Sequential(nn.Linear(4, 8000), nn.ReLU(), nn.Linear(8000, 2)),
            {"adjustment": {"mode": "hat"}, "heads": {"mode": "shared"}, "rest": "share"},
            torch.zeros(1, 4),
        )
        for number in range(tasks):
            with session.task(number) as task:
                task.anneal(1, 1)
        session.save(folder)
        sizes.append(next(folder.glob("session-*")).stat().st_size)
    per_task = (sizes[1] - sizes[0]) / 10
    assert 1000 <= per_task < 1200


def test_an_interrupted_session_can_be_saved_again(folder: Path, tmp_path: Path) -> None:
    stopped(folder, 9)
    loaded = fh.load(Net(), folder)
    loaded.save(tmp_path / "again")
    again = fh.load(Net(), tmp_path / "again")
    assert again.interrupted == 2
    assert bits(again) == bits(loaded)


def test_saving_changes_nothing_and_draws_nothing(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    with session.task("a") as task:
        task.anneal(1, 2)
        before, drawn = bits(session), torch.get_rng_state()
        session.save(folder)
        assert bits(session) == before
        assert torch.equal(torch.get_rng_state(), drawn)


def test_a_second_save_replaces_the_first(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "session-0123456789abcdef.safetensors").write_text("left by a crash")
    (folder / "manifest-0123456789abcdef.tmp").write_text("left by a crash")
    for _ in range(3):
        session.save(folder)
    assert files(folder) == ["extra", "manifest.json", "notes.txt", "session"]


# ------------------------------------------------------------------ example inputs and callbacks
class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, *, scale: Tensor, mode: str = "plain") -> Tensor:
        return self.head(self.hidden(x).relu() * scale)  # type: ignore[no-any-return]


def inputs() -> Iterator[Any]:
    x, scale = torch.ones(2, 3), torch.ones(())
    yield {"x": x, "scale": scale, "mode": "plain"}
    yield lambda model: model(x, scale=scale)


@pytest.mark.parametrize("given", list(inputs()))
def test_example_inputs_are_stored_if_they_are_plain(folder: Path, given: Any) -> None:
    fh.attach(Keywords(), {}, given).save(folder)
    if callable(given):
        with pytest.raises(BadCallError, match=r"could not be stored\. Pass what you passed to `attach`"):
            fh.load(Keywords(), folder)
    assert fh.load(Keywords(), folder, given if callable(given) else None).traced


def test_the_first_batch_is_stored(folder: Path) -> None:
    session = fh.attach(Keywords(), {})
    with pytest.raises(NoTaskError, match="has not been traced yet"):
        session.save(folder)
    session.model(torch.ones(2, 3), scale=torch.ones(()))
    session.save(folder)
    assert fh.load(Keywords(), folder).traced


def test_callbacks_other_than_those_of_the_spec_must_be_passed(folder: Path) -> None:
    class Mine(fh.Callback):
        key = "mine"
        seen = 0

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, state: Any) -> None:
            self.seen = state["seen"]

    first, second = Mine(), Mine()
    first.seen = 7
    fh.attach(Net(), {}, example(), [first]).save(folder)
    with pytest.raises(BadCallError, match=r"had other ones \(mine\) than its spec asks for"):
        fh.load(Net(), folder)
    loaded = fh.load(Net(), folder, callbacks=[second])
    assert (second.seen, loaded.own_callbacks) == (7, (second,))

    class Other(Mine):
        def load_state_dict(self, state: Any) -> None:
            raise KeyError("gone")

    model = Net()
    before = snapshot(model)
    with pytest.raises(StateMismatchError, match=r"\(mine\), but one raised KeyError: 'gone'"):
        fh.load(model, folder, callbacks=[Other()])
    assert_unchanged(model, before)


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Assert that a model is as it was before `load`: tensors and hooks."""
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._load_state_dict_pre_hooks for m in model.modules())


# ------------------------------------------------------------------ another model, other values
def other_model(change: str) -> nn.Module:
    model: nn.Module = Net(hidden=9) if change == "shape" else Net()
    if change == "missing":
        model = nn.Sequential(*list(model.children())[:3], nn.Linear(12, 3))
    if change == "dtype":
        model.double()
    if change == "meta":
        model.to("meta")
    return model


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("shape", [r"tensor '4.weight' has shape \(9, 12\), the save has \(8, 12\)", "tensor '6.weight' has shape"]),
        ("missing", ["tensor '4.weight' .* is not in the model", "tensor '3.weight' is not in the save"]),
        ("dtype", ["tensor '0.weight' is float64, the save has float32"]),
        ("meta", ["tensor '0.weight' of the model has no values yet"]),
    ],
)
def test_another_model_is_refused_with_all_differences(folder: Path, change: str, messages: list[str]) -> None:
    fh.attach(Net(), SPEC, example()).save(folder)
    model = other_model(change)
    before = snapshot(model)
    for part in messages:
        with pytest.raises(StateMismatchError, match=part):
            fh.load(model, folder)
    if change != "meta":
        assert_unchanged(model, before)


def test_a_model_that_cannot_take_its_values_is_left_as_it_was(folder: Path) -> None:
    class Stubborn(Net):
        def _load_from_state_dict(self, *args: Any) -> None:
            raise RuntimeError("never")

    learn(folder)
    model = Stubborn(classes=7)
    before, head = snapshot(model), model[6].weight
    with pytest.raises(StateMismatchError, match="its load_state_dict raised RuntimeError: never"):
        fh.load(model, folder)
    assert_unchanged(model, before)
    assert model[6].weight is head
    assert model[6].out_features == 7


def test_a_half_loaded_model_is_restored(folder: Path) -> None:
    learn(folder)
    model = Net(classes=7)
    model.add_module("7", nn.Identity())
    model.register_load_state_dict_post_hook(_fail)  # type: ignore[no-untyped-call]
    before, head = snapshot(model), model[6].weight
    with pytest.raises(StateMismatchError, match="too late"):
        fh.load(model, folder)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model[6].weight is head
    assert model[6].out_features == 7


def _fail(*_: Any) -> None:
    raise RuntimeError("too late")


def test_an_attached_model_is_refused(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    session.save(folder)
    with pytest.raises(AlreadyAttachedError):
        fh.load(session.model, folder)


def test_what_cannot_be_stored_is_named_and_nothing_is_written(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    odd = {"f": len, "sparse": torch.ones(2).to_sparse(), "meta": torch.ones(2, device="meta"), "key": {(1,): 2}}
    with pytest.raises(BadCallError) as caught:
        session.save(folder, odd)
    for part in ("extra.f.value", "extra.sparse.value", "on the meta device", "the key (1,)"):
        assert part in str(caught.value)
    assert not folder.exists()


def test_a_save_inside_use_or_after_detach_is_refused(folder: Path) -> None:
    session = learn(folder)
    with session.use("birds"), pytest.raises(BadCallError, match=r"outside `session\.use"):
        session.save(folder)
    session.detach()
    with pytest.raises(DetachedError):
        session.save(folder)


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_a_path_that_is_no_saved_session_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "file":
        path.write_text("{}")
    if what == "empty":
        path.mkdir()
    with pytest.raises(CheckpointError, match=str(path)):
        fh.load(Net(), path)
    if what == "file":
        with pytest.raises(CheckpointError, match="FileExistsError"):
            fh.attach(Net(), {}, example()).save(path)


def test_a_moved_folder_can_be_loaded(folder: Path, tmp_path: Path) -> None:
    session = learn(folder)
    copied = folder.rename(tmp_path / "elsewhere")
    assert bits(fh.load(copy.deepcopy(Net()), str(copied))) == bits(session)
