"""The examples run, in a smaller setting, and what they claim is what they print; those of trainers are elsewhere."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fgadahat_hooks as fh
from tests.support.tree import ROOT

EXAMPLES = ROOT / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))

Run = Callable[..., str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that imports an example; measures that one registers are gone with the test."""
    monkeypatch.setattr(fh.registry.measures, "_items", dict(fh.registry.measures._items))

    def load(name: str) -> Any:
        monkeypatch.delitem(sys.modules, f"examples.{name}", raising=False)
        return importlib.import_module(f"examples.{name}")

    return load


@pytest.fixture
def run(example: Callable[[str], Any], capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs an example with arguments and returns what it prints, its children's lines too."""

    def call(name: str, *arguments: str) -> str:
        example(name).main(list(arguments))
        return capfd.readouterr().out

    return call


def shares(line: str) -> list[str]:
    """Return the percentages of a line."""
    return re.findall(r"[\d.]+%", line)


# ------------------------------------------------------------------ models and loops
@pytest.mark.filterwarnings("ignore:Encountered more than 100 detections")
def test_detection(run: Run) -> None:
    printed = run("detection", "--epochs", "1", "--images", "8", "--test-images", "4")
    assert (
        "heads: head.classification_head.cls_logits, head.regression_head.bbox_reg, head.regression_head.bbox_ctrness"
        in printed
    )
    assert len(re.findall(r"^after .*: .*, mAP [\d.-]+$", printed, re.MULTILINE)) == 3
    assert "labels of the first task bit-identical: yes" in printed


def test_plain_loop(run: Run) -> None:
    printed = run("plain_loop", "--epochs", "1")
    assert len(re.findall(r"digits: accuracy [\d.]+%, capacity left [\d.]+%$", printed, re.MULTILINE)) == 3
    assert "logits of the first task bit-identical: yes" in printed


def test_plain_resnet(run: Run) -> None:
    lines = run("plain_resnet", "--tasks", "2", "--epochs", "1").splitlines()
    first, second = shares(lines[1]), shares(lines[2])
    assert (len(first), len(second)) == (2, 3)
    assert first[0] == second[0]
    assert lines[3].startswith("Tasks '0 or 1', '2 or 3': logits bit-identical")


def test_transformers_text(run: Run) -> None:
    pytest.importorskip("transformers", "5.0", "the arguments used here came with transformers 5")
    printed = run("transformers_text", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical: yes" in printed
    assert len(re.findall(r"%\s+yes$", printed, re.MULTILINE)) == 2


def test_the_texts_are_many_and_each_is_in_one_split_only(example: Callable[[str], Any]) -> None:
    pytest.importorskip("transformers", "5.0", "the arguments used here came with transformers 5")
    text = example("transformers_text")
    for modules in text.TASKS.values():
        found = [text.sentences(module) for module in modules]
        assert min(map(len, found)) > 50
        assert all(len(set(each)) == len(each) for each in found)
    task = next(iter(text.TASKS))
    train, test = text.Sentences(task, test=False), text.Sentences(task, test=True)
    assert set(test.labels.tolist()) == set(train.labels.tolist()) == {0, 1, 2}
    assert int(train.ids.max()) < text.WORDS
    assert train.ids.shape[1] == text.LENGTH


def test_tabular_mlp(run: Run) -> None:
    lines = run("tabular_mlp", "--epochs", "12", "--seeds", "1").splitlines()
    gated = [shares(line)[2:4] for line in lines[2:5]]
    assert [learnt == end for learnt, end in gated] == [True] * 3
    assert all(float(end[:-1]) > 80 for _, end in gated)
    assert "logits bit-identical" in lines[-1]


# ------------------------------------------------------------------ a model in use
def test_serving_threads(run: Run) -> None:
    printed = run("serving_threads", "--epochs", "1", "--requests", "60")
    assert re.findall(r"same bits: (\w+)$", printed, re.MULTILINE) == ["yes"] * 3


def test_export_onnx(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    printed = run("export_onnx", "--epochs", "2", "--folder", str(tmp_path))
    rows = [line for line in printed.splitlines() if " digits " in line]
    assert [("whole" in row, "same bits" in row, "same classes" in row) for row in rows[::2]] == [(True,) * 3] * 2
    assert [("compact" in row, "same classes" in row) for row in rows[1::2]] == [(True,) * 2] * 2
    sizes = [int(re.findall(r"[\d,]{4,}", row)[0].replace(",", "")) for row in rows]
    assert sizes[1] < sizes[0]
    assert sizes[3] < sizes[2]
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == [
        f"{task}_digits_{form}.onnx" for task in ("large", "small") for form in ("compact", "whole")
    ]


def test_resume(run: Run, tmp_path: Path) -> None:
    printed = run("resume")
    assert "finished: small digits; in the middle of: middle digits" in printed
    assert "killed and resumed, bit-identical to a run without a break: yes" in printed
    if sys.platform != "win32":
        assert "the child was killed: exit status -9" in printed


# ------------------------------------------------------------------ parts of one's own
def test_custom_measure(run: Run) -> None:
    printed = run("custom_measure", "--epochs", "1")
    assert len(re.findall(r"digits: [\d.]+% of the test images are right at the end$", printed, re.MULTILINE)) == 3
    table = printed.partition("it uses:\n")[2].splitlines()[1:]
    assert [len(line.split()) for line in table] == [5] * 3
    assert "nan" not in printed


def test_the_custom_measure_is_its_formula(example: Callable[[str], Any]) -> None:
    example("custom_measure")
    first = nn.Linear(4, 6)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    session = fh.attach(model, {}, x)
    found = session.measure("taylor", x, y, power=3.0)["0"]
    loss = nn.functional.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, [first.weight])
    torch.testing.assert_close(found, (first.weight.detach() * gradient).sum(1).abs() ** 3)
    with pytest.raises(fh.FgadahatError, match="takes no parameters"):
        session.measure("taylor", x, y, powr=3.0)


def test_custom_callback(run: Run) -> None:
    every = run("custom_callback", "--epochs", "2", "--share", "1")
    assert len(re.findall(r"settled after 1 of 2 epochs", every)) == 3
    none = run("custom_callback", "--epochs", "1", "--share", "0")
    assert len(re.findall(r"still changing after 1 of 1 epochs", none)) == 3
    assert "logits bit-identical" in none


def test_the_counts_of_the_custom_callback_survive_a_save(example: Callable[[str], Any], tmp_path: Path) -> None:
    module = example("custom_callback")
    x, watch = torch.zeros(2, 1, 8, 8), module.Settled()
    session = fh.attach(module.network(), {}, x, callbacks=[fh.GradientAdjustCallback({"mode": "hat"}), watch])
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1, gate_lr=100.0)))
        for number in range(2):
            task.begin_batch(number + 1, 2)
            (session.model(torch.randn(4, 1, 8, 8)).square().mean() + task.regularization()).backward()
            optimizer.step()
        session.save(tmp_path)
        changes = list(watch.changes)
    assert sum(changes) > 0
    other = module.Settled()
    callbacks = [fh.GradientAdjustCallback({"mode": "hat"}), other]
    loaded = fh.load(module.network(), tmp_path, callbacks=callbacks)
    with loaded.task("a", resume=True):
        assert other.changes == changes
        assert other.settled(2) == (sum(changes) <= 0.02 * 96)


# ------------------------------------------------------------------ a spec in a file
def test_from_spec(run: Run) -> None:
    printed = run("from_spec", "--epochs", "1")
    assert "adjustment rates, mode fg_adahat" in printed
    assert len(re.findall(r"when learnt +[\d.]+% +at the end +[\d.]+%", printed)) == 3


def test_a_wrong_spec_is_reported_with_all_its_problems(
    example: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "spec.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("norms:", "nroms:").replace("mode: fg_adahat", "mode: fg_adahatt"), encoding="utf-8")
    assert example("from_spec").main(["--spec", str(wrong)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Did you mean 'norms'?" in told.err
    assert "Did you mean 'fg_adahat'?" in told.err


def test_the_yaml_file_names_its_schema_and_fits_the_library() -> None:
    first = (EXAMPLES / "spec.yaml").read_text(encoding="utf-8").splitlines()[0]
    (schema,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", first)
    assert (EXAMPLES / schema).samefile(EXAMPLES / "spec.schema.json")
    assert fh.load_spec(EXAMPLES / "spec.yaml").adjustment.mode == "fg_adahat"


def test_the_committed_schema_is_that_of_the_library() -> None:
    """After a change of the spec, write it anew: `json.dumps(fh.json_schema(), indent=2)`."""
    assert json.loads((EXAMPLES / "spec.schema.json").read_text(encoding="utf-8")) == fh.json_schema()


# ------------------------------------------------------------------ what all have in common
@pytest.mark.parametrize("name", FILES)
def test_every_example_says_how_to_run_it_and_is_in_the_list(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(source)) or ""
    assert re.search(rf"(Run it with|or) `[^`]*examples/{re.escape(name)}", told)
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert page.count(f"| `examples/{name}` |") == 1
    assert 'if __name__ == "__main__":' in source


@pytest.mark.parametrize("name", [name for name in FILES if name != "demo.py"])  # `make demo` runs that one
def test_every_example_is_run_by_a_test(name: str) -> None:
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    assert any(f'"{name.removesuffix(".py")}"' in text or f"examples/{name}" in text for text in tests)
