"""The exported module: the task's outputs bit for bit, the user's class, and nothing of this library."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import DetachedError, ExportError, TaskRunningError, TraceError, UnknownTaskError
from fgadahat_hooks.export.plain import is_ours
from tests.support.exporting import Attention, Plain, TiedHead, TiedNorms, exported_and_used, finish
from tests.support.learning import learn, logits, recipe
from tests.support.small_models import Backwards, Functional, Net, TwoHeads, batch
from tests.support.snapshot import differences, snapshot
from tests.support.tree import ROOT

MODELS: list[Callable[[], nn.Module]] = [
    Net,
    Backwards,
    Functional,
    Plain,
    partial(Plain, track=False),
    TiedNorms,
    Attention,
]


def session_of(make: Callable[[], nn.Module], spec: object = None) -> fh.Session:
    """Attach and finish tasks a and b, the second trained."""
    torch.manual_seed(0)
    session = fh.attach(make(), spec, batch(1)[0])
    finish(session, "a")
    learn(session, "b", [batch(seed=3)] * 2, recipe("adamw"))
    return session


# ------------------------------------------------------------------ bit-identical outputs
@pytest.mark.parametrize("make", MODELS, ids=str)
def test_outputs_are_bit_identical_to_the_task(make: Callable[[], nn.Module]) -> None:
    session = session_of(make)
    for task in "ab":
        exported, used = exported_and_used(session, task, batch()[0])
        assert torch.equal(exported, used)


@pytest.mark.parametrize("make", MODELS, ids=str)
def test_the_masks_matter(make: Callable[[], nn.Module]) -> None:
    session = session_of(make)
    other = copy.deepcopy(session.export("a"))
    with session.use("a"):
        plain = session.detach()
    exported = module_logits(other)
    assert not torch.equal(exported, module_logits(plain.eval()))


def module_logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(batch()[0])
    return found


def test_several_outputs_and_heads() -> None:
    session = fh.attach(TwoHeads(), None, batch(1)[0])
    finish(session, "a")
    with torch.no_grad(), session.use("a"):
        used = session.model.eval()(batch()[0])
        exported = session.export("a")(batch()[0])
    assert all(torch.equal(used[k], exported[k]) for k in ("left", "right"))


@pytest.mark.parametrize("norms", ["per_task", "freeze", "share"])
def test_every_policy_of_norms(norms: str) -> None:
    session = session_of(Net, {"norms": norms})
    exported, used = exported_and_used(session, "a", batch()[0])
    assert torch.equal(exported, used)


def test_a_head_with_another_number_of_outputs() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    learn(session, "a", [batch()], recipe("adamw"), num_classes=3)
    learn(session, "b", [batch()], recipe("adamw"), num_classes=7)
    module = session.export("a")
    assert module.get_submodule("head").out_features == 3
    assert session.model.get_submodule("head").out_features == 7
    assert torch.equal(module_logits(module), logits(session, "a", batch()[0]))


def test_in_a_running_task_another_task_is_exported() -> None:
    session = session_of(Net)
    used = logits(session, "a", batch()[0])
    with session.task("c") as task:
        learn_a_step(session, task)
        module = session.export("a")
        assert session.model.training
        with pytest.raises(TaskRunningError, match="has not ended"):
            session.export("c")
    assert torch.equal(module_logits(module), used)


def test_hooks_of_a_running_measure_are_left_out() -> None:
    spec = {"importance": {"type": "gradient_x_activation_abs"}, "summation": {"strategy": "add_latest"}}
    session = session_of(Net, {**spec, "adjustment": {"mode": "fg_adahat"}})
    with session.task("c") as task:
        learn_a_step(session, task)
        module, used = session.export("a"), logits(session, "a", batch()[0])
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())
    assert torch.equal(module_logits(module), used)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_precisions(dtype: torch.dtype) -> None:
    x = batch()[0].to(dtype)
    session = fh.attach(Net().to(dtype), None, x[:2])
    finish(session, "a")
    exported, used = exported_and_used(session, "a", x)
    assert exported.dtype == dtype
    assert torch.equal(exported, used)


def test_channels_last_memory_format() -> None:
    session = fh.attach(Net().to(memory_format=torch.channels_last), None, batch(2)[0])
    finish(session, "a")
    x = batch()[0].contiguous(memory_format=torch.channels_last)
    exported, used = exported_and_used(session, "a", x)
    assert torch.equal(exported, used)
    small = session.export("a", compact=True)
    with torch.no_grad():
        torch.testing.assert_close(small(x), used)


def test_transformer_layers_without_the_fused_kernel() -> None:
    x = torch.randn(3, 5, 8)
    session = fh.attach(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), {"heads": {"names": []}}, x)
    finish(session, "a")
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        exported, used = exported_and_used(session, "a", x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    assert torch.equal(exported, used)


def test_tensors_that_a_forward_left_on_the_model_are_copied() -> None:
    class Stores(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.last = super().forward(x)
            return self.last

    session = fh.attach(Stores(), None, batch(1)[0])
    finish(session, "a")
    with session.use("a"):
        session.model(batch()[0])
    assert session.model.last.grad_fn is not None
    exported, used = exported_and_used(session, "a", batch()[0])
    assert torch.equal(exported, used)


def learn_a_step(session: fh.Session, task: fh.Task) -> None:
    optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
    for x, y in task.batches([batch()]):
        F.cross_entropy(session.model.train()(x), y).backward()
        optimizer.step()


def test_while_another_task_is_in_use() -> None:
    session = session_of(Net)
    used = {task: logits(session, task, batch()[0]) for task in "ab"}
    with session.use("b"):
        module = session.export("a")
        assert torch.equal(module_logits(session.model.eval()), used["b"])
    assert torch.equal(module_logits(module), used["a"])


# ------------------------------------------------------------------ a plain module
def test_has_the_same_class_and_keys() -> None:
    model = Net()
    keys, attributes = list(model.state_dict()), {n: sorted(vars(m)) for n, m in model.named_modules()}
    session = fh.attach(model, None, batch(1)[0])
    finish(session, "a")
    module = session.export("a")
    assert type(module) is Net
    assert list(module.state_dict()) == keys
    assert {n: sorted(vars(m)) for n, m in module.named_modules()} == attributes
    assert not any(m.training for m in module.modules())
    hooks = [m._forward_hooks or m._forward_pre_hooks or m._load_state_dict_pre_hooks for m in module.modules()]
    assert not any(hooks)


def test_shares_no_memory_with_the_session() -> None:
    session = session_of(Net)
    used = logits(session, "a", batch()[0])
    module = session.export("a")
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.zero_()
    assert torch.equal(logits(session, "a", batch()[0]), used)


def test_leaves_the_session_alone() -> None:
    session = session_of(Net)
    before, rng = snapshot(session.model), torch.get_rng_state()
    session.export("a")
    assert differences(before, snapshot(session.model)) == []
    assert torch.equal(torch.get_rng_state(), rng)


def test_keeps_the_users_hooks_and_drops_its_own() -> None:
    model = Net()
    model.hidden.register_forward_hook(double)
    session = fh.attach(model, None, batch(1)[0])
    finish(session, "a")
    module = session.export("a")
    assert list(module.get_submodule("hidden")._forward_hooks.values()) == [double]
    assert torch.equal(module_logits(module), logits(session, "a", batch()[0]))


def double(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return output * 2


def test_drops_a_session_that_the_model_holds() -> None:
    model = Net()
    session = fh.attach(model, None, batch(1)[0])
    model.session = session  # type: ignore[assignment]
    finish(session, "a")
    assert not hasattr(session.export("a"), "session")


def test_recognises_objects_of_this_library() -> None:
    session = session_of(Net)
    assert is_ours(session.capacity)
    assert is_ours(partial(session.capacity))
    assert not any(map(is_ours, (double, nn.ReLU(), torch.zeros(1), "fgadahat_hooks", None)))


def test_tied_parameters_stay_tied_if_the_same_rows_are_zero() -> None:
    session = fh.attach(TiedNorms(), None, batch(1)[0])
    finish(session, "a")
    module = session.export("a")
    assert parameter(module, "norm1") is not parameter(module, "norm2")  # other rows are zero
    finish(session, "b", share=1.0)
    module = session.export("b")
    assert parameter(module, "norm1") is parameter(module, "norm2")


def parameter(module: nn.Module, layer: str) -> nn.Parameter:
    return module.get_parameter(f"{layer}.weight")


def test_a_tied_head_stays_tied() -> None:
    words = torch.randint(0, 11, (4, 5))
    session = fh.attach(TiedHead(), None, words)
    finish(session, "a")
    module = session.export("a")
    assert parameter(module, "head") is parameter(module, "words")
    with torch.no_grad():
        assert torch.equal(module(words), logits(session, "a", words))


def test_needs_nothing_of_this_library(tmp_path: Path) -> None:
    session = session_of(Net)
    modules, x = [session.export("a"), session.export("a", compact=True)], batch()[0]
    file = tmp_path / "model.pickle"
    file.write_bytes(pickle.dumps((modules, x, logits(session, "a", x))))
    script = (
        "import sys; sys.modules['fgadahat_hooks'] = None; import pickle, torch\n"
        "(module, small), x, used = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "with torch.no_grad(): assert torch.equal(module(x), used) and torch.allclose(small(x), used, atol=1e-6)\n"
        "assert not [n for n, m in sys.modules.items() if n.startswith('fgadahat') and m is not None]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ other formats
def test_torch_export_accepts_it() -> None:
    session = session_of(Net)
    module, x = session.export("a"), batch()[0]
    program = torch.export.export(module, (x,))
    with torch.no_grad():
        assert torch.equal(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_export_accepts_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    session = session_of(Net)
    module, x = session.export("a"), batch()[0]
    file = tmp_path / "model.onnx"
    torch.onnx.export(module, (x,), str(file), dynamo=True, verbose=False)
    reader = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(reader.run(None, {reader.get_inputs()[0].name: x.numpy()})[0])
    torch.testing.assert_close(found, module_logits(module))
    assert torch.equal(found.argmax(1), module_logits(module).argmax(1))


# ------------------------------------------------------------------ what is refused
class Centred(nn.Linear):
    """Subtracts the mean of the whole weight, so that rows set to zero would move the others."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight - self.weight.mean(), self.bias)


def test_refuses_a_layer_that_mixes_its_rows() -> None:
    model = nn.Sequential(Centred(4, 8), nn.ReLU(), nn.Linear(8, 2))
    session = fh.attach(model, None, torch.randn(2, 4))
    finish(session, "a")
    with pytest.raises(ExportError, match=r"'a' .* own: '0' \(Centred\)\. Name such layers in gates\.exclude"):
        session.export("a")


def test_refuses_unknown_tasks_and_detached_sessions() -> None:
    session = session_of(Net)
    with pytest.raises(UnknownTaskError, match="Finished tasks: 'a', 'b'"):
        session.export("c")
    with pytest.raises(TraceError, match="raised RuntimeError on the example inputs"):
        session.export("a", inputs=torch.randn(1, 5, 6, 6))
    session.detach()
    with pytest.raises(DetachedError):
        session.export("a")
