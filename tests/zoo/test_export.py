"""Both exports of every architecture of the table, and what other tools make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fgadahat_hooks as fh
from benchmarks.bench_export import finish, logits, measure
from benchmarks.export_models import SUBJECTS, build
from tests.export.test_published import check
from tests.support.forgetting import History
from tests.support.learning import recipe
from tests.support.zoo_models import BUILDERS
from tests.support.zoo_models import build as build_trained

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
TOOLS = ("ResNet-18", "MobileNetV3-S", "ShuffleNetV2 x1.0", "DenseNet-121", "ViT (4 blocks of 128)", "Swin-T")


@pytest.mark.parametrize("name", SUBJECTS)
def test_both_exports(name: str) -> None:
    check(name, measure(name))


@pytest.mark.parametrize("name", BUILDERS)
def test_trained_tasks_keep_their_bits(name: str) -> None:
    history = History(build_trained(name))
    for task, classes in (("birds", 3), ("cars", 4)):
        history.learn(task, recipe("adamw"), classes=classes)
    for task, ended in history.ended.items():
        with torch.no_grad():
            assert torch.equal(history.session.export(task)(history.probe), ended)


@pytest.mark.parametrize("compact", [False, True], ids=["baked", "compact"])
@pytest.mark.parametrize("name", TOOLS)
def test_torch_export_and_onnx(name: str, compact: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    subject = SUBJECTS[name]
    session = fh.attach(build(name), None, subject.inputs(1, seed=3))
    finish(session)
    module, x = session.export(0, compact=compact), subject.inputs(8, seed=4)
    with torch.no_grad():
        plain = logits(module, x)
        program = torch.export.export(module, (x,))
        torch.testing.assert_close(logits(program.module(), x), plain)
    file = tmp_path / "model.onnx"
    torch.onnx.export(module, (x,), str(file), dynamo=True, verbose=False)
    reader = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(reader.run(None, {reader.get_inputs()[0].name: x.numpy()})[0])
    assert torch.equal(found.argmax(1), plain.argmax(1))
    assert (found - plain).abs().max() <= 1e-4 * plain.abs().max()
