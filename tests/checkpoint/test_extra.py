"""`session.restore`: optimizers, schedulers, scalers, loaders and random numbers resume in the state that was saved."""

from __future__ import annotations

import collections
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adagrad, AdamW
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError, NoTaskError, StateMismatchError
from tests.checkpoint.test_state import differing
from tests.support.saving import SPEC, Net, example, learn, loader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def reloaded(folder: Path, extra: dict[str, Any]) -> fh.Session:
    fh.attach(Net(), SPEC, example()).save(folder, extra)
    return fh.load(Net(), folder)


class Stateful:
    """Any object with these two methods, such as a loader or a scheduler of the user."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        if state is None:
            raise KeyError("nothing")
        self.value = state


# ------------------------------------------------------------------ values
VALUES: dict[str, Any] = {
    "keys": {1: "a", "b": {2: None}, None: 3, 2.5: 4, False: 5, "$": 6},
    "numbers": [0.1, -0.0, 1e-320, float("inf"), float("-inf"), 2**80, -1, True, None],
    "tuples": ((1, [2, (3,)]), (), []),
    "counter": collections.Counter({3: 2}),
    "text": "ü\x00\ud800",
    "tensors": {
        n: torch.arange(5).to(getattr(torch, n)) for n in ("float16", "bfloat16", "int8", "uint8", "complex128")
    },
    "shapes": [torch.ones(()), torch.ones(0, 3), torch.randn(3, 4).t(), torch.randn(9)[::2], torch.rand(3, 7) > 0.5],
    "bits": [torch.zeros(0, dtype=torch.bool), torch.ones((), dtype=torch.bool), torch.ones(2, 3, 5, dtype=torch.bool)],
    "parameter": nn.Parameter(torch.ones(2)),
    "array": np.arange(6.0).reshape(2, 3),
    "numpy number": np.float32(0.1),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("held", [True, False], ids=["object", "plain"])
def test_values_are_restored_with_type_and_bits(folder: Path, name: str, held: bool) -> None:
    value, target = VALUES[name], Stateful()
    session = reloaded(folder, {"x": Stateful(value) if held else value})
    plain = session.restore(folder, {"x": target} if held else None)
    assert plain.keys() == (set() if held else {"x"})
    found = target.value if held else plain["x"]
    assert type(found) is (Tensor if isinstance(value, Tensor) else type(value))
    if isinstance(value, np.ndarray):
        assert np.array_equal(found, value)
    else:
        assert differing(found, value) == []
        assert repr(found) == repr(value.data if isinstance(value, Tensor) else value)


def test_aliases_stay_aliases(folder: Path) -> None:
    shared = torch.rand(4)
    plain = reloaded(folder, {"x": [shared, shared, shared[:2], shared.clone()]}).restore(folder)["x"]
    assert plain[0] is plain[1]
    assert len({t.data_ptr() for t in plain}) == 3


# ------------------------------------------------------------------ optimizers, schedulers, scalers, generators
def optimizers(session: fh.Session) -> dict[str, Any]:
    adamw, sgd, adagrad = (make(session.parameter_groups(lr=0.01)) for make in (AdamW, SGD, Adagrad))
    for group in sgd.param_groups:
        group["momentum"] = 0.9
    return {
        "adamw": adamw,
        "sgd": sgd,
        "adagrad": adagrad,
        "plateau": ReduceLROnPlateau(sgd),
        "cycle": OneCycleLR(adamw, [0.1, 0.2], 20),
        "steps": MultiStepLR(sgd, [2, 2, 5]),
        "scaler": torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2),
        "generator": torch.Generator().manual_seed(1),
    }


def test_optimizers_schedulers_scalers_and_generators_are_restored(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    parts = optimizers(session)
    with session.task("a") as task:
        for name in ("adamw", "sgd", "adagrad"):
            task.protect(parts[name])
        for x, y in task.batches(loader(0, 3)):
            parts["scaler"].scale(cross_entropy(session.model(x), y) + task.regularization()).backward()
            for name in ("adamw", "sgd", "adagrad"):
                parts["scaler"].step(parts[name])
            parts["scaler"].update()
            for name, value in (("plateau", (0.5,)), ("cycle", ()), ("steps", ())):
                parts[name].step(*value)
            torch.rand(3, generator=parts["generator"])
        session.save(folder, parts)
    loaded = fh.load(Net(), folder)
    with loaded.task("a", resume=True):
        fresh = optimizers(loaded)
        assert loaded.restore(folder, fresh) == {}
        for name, part in parts.items():
            if name == "generator":
                assert torch.equal(part.get_state(), fresh[name].get_state())
            else:
                assert differing(part.state_dict(), fresh[name].state_dict()) == []


# ------------------------------------------------------------------ random numbers
def drawn() -> tuple[Any, ...]:
    return (torch.rand(2).tolist(), random.random(), np.random.rand(2).tolist(), np.random.randn(1).tolist())  # noqa: S311


@pytest.mark.parametrize("kept", [True, False])
def test_random_numbers_resume(folder: Path, kept: bool) -> None:
    states = random.getstate(), np.random.get_state()
    try:
        np.random.randn(1)  # leaves half of a pair behind
        fh.attach(Net(), SPEC, example()).save(folder)
        expected = drawn()
        session = fh.load(Net(), folder)
        session.restore(folder, random=kept)
        assert (drawn() == expected) is kept
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


# ------------------------------------------------------------------ all or nothing
def test_a_failed_restore_changes_nothing(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    session.save(
        folder, {"a": Stateful(1), "b": Stateful(2), "epoch": 3, "optimizer": AdamW(session.parameter_groups(lr=1))}
    )
    session = fh.load(Net(), folder)
    good = Stateful(7)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(StateMismatchError) as caught:
        session.restore(folder, {"c": good, "epoch": good, "a": object()})
    for part in ("'c' was not saved", "'epoch' was saved as plain data", "'a' has no load_state_dict"):
        assert part in str(caught.value)
    other = AdamW([nn.Parameter(torch.ones(1))])
    for name, broken, message in (("b", Broken(), "raised ValueError: no"), ("optimizer", other, "different number")):
        with pytest.raises(StateMismatchError, match=message):
            session.restore(folder, {"a": good, name: broken})
        assert good.value == 7
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(BadCallError, match="with str as keys"):
        session.restore(folder, {1: good})  # type: ignore[dict-item]


class Broken(Stateful):
    """Loads the state that it has, and refuses any other."""

    def __init__(self) -> None:
        super().__init__("own")

    def load_state_dict(self, state: Any) -> None:
        if state != "own":
            raise ValueError("no")


def test_a_save_that_the_session_was_not_loaded_from_is_refused(folder: Path) -> None:
    session = fh.attach(Net(), SPEC, example())
    session.save(folder)
    loaded = fh.load(Net(), folder)
    session.save(folder)
    with pytest.raises(StateMismatchError, match="another save was made there since"):
        loaded.restore(folder)
    with pytest.raises(StateMismatchError, match="it was not loaded from one"):
        session.restore(folder)


def test_invalid_random_states_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = fh.attach(Net(), SPEC, example())
    monkeypatch.setattr("fgadahat_hooks.checkpoint.save.random_state", lambda: {"torch": torch.zeros(3)})
    session.save(folder)
    session = fh.load(Net(), folder)
    with pytest.raises(DamagedCheckpointError, match="leave random numbers alone"):
        session.restore(folder)
    session.restore(folder, random=False)


# ------------------------------------------------------------------ an interrupted epoch
def test_a_loader_without_a_length_needs_num_batches() -> None:
    session = fh.attach(Net(), SPEC, example())
    with session.task("a") as task:
        task.anneal(1, 1)
        with pytest.raises(BadCallError, match=r"without a length \(generator\)"):
            next(iter(task.batches(x for x in range(3))))
        assert list(task.batches((x for x in range(3)), num_batches=3, start=1)) == [1, 2]


def test_random_augmentation_resumes_with_the_same_batches(folder: Path) -> None:
    """A shuffled loader with random batches gives the same batches after a restart."""

    class Noisy(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Tensor:
            return torch.tensor([float(index)]) + torch.rand(1)

    def noisy() -> Any:
        return torch.utils.data.DataLoader(Noisy(), batch_size=2, shuffle=True)

    session = fh.attach(Net(), SPEC, example())
    seen = []
    with session.task("a") as task:
        for number, x in enumerate(task.batches(noisy())):
            torch.rand(5)
            seen.append((x, torch.rand(1)))
            if number == 2:
                session.save(folder)
    loaded = fh.load(Net(), folder)
    with loaded.task("a", resume=True) as task:
        torch.rand(77)
        loaded.restore(folder)
        again = [(x, torch.rand(6)[5:]) for x in task.batches(noisy(), start=3)]
    assert differing(again, seen[3:]) == []


def test_resume_is_refused_when_no_task_was_interrupted(folder: Path) -> None:
    session = learn(folder)
    with pytest.raises(NoTaskError, match="no task was interrupted"):
        session.task("x", resume=True)
