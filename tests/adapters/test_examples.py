"""The examples of trainers run, in a smaller setting, and prove what they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.tree import ROOT


def start(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a Python command in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=240,
    )


def run(*command: str, folder: Path = ROOT) -> str:
    """Run a Python command in a folder, the tree itself by default; return what it prints."""
    done = start(*command, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_accelerate_vit() -> None:
    printed = run("examples/accelerate_vit.py", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical: yes" in printed
    assert len(re.findall(r"%\s+[\d.]+%\s+yes$", printed, re.MULTILINE)) == 2


def run_to_the_end(*command: str) -> str:
    """Run a program of several processes, again if torch aborts one of them on its way out.

    Now and then a process that has used DistributedDataParallel is aborted after its last line, when the threads of
    its process group are taken down; a script of ten lines without this library shows it too.
    """
    for _ in range(3):
        done = start(*command)
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_torchrun_ddp() -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = run_to_the_end(*launch, "examples/torchrun_ddp.py", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical on all 2 processes: yes" in printed
    assert len(re.findall(r"%$", printed, re.MULTILINE)) == 2


def test_lightning_resnet() -> None:
    printed = run("examples/lightning_resnet.py", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical: yes" in printed
    assert len(re.findall(r"%\s+[\d.]+%\s+yes$", printed, re.MULTILINE)) == 2


def test_the_lightning_modules_know_nothing_of_the_library() -> None:
    for file in ("lightning_resnet.py", "lightning_cli/main.py"):
        source = (ROOT / "examples" / file).read_text(encoding="utf-8")
        (module,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Classifier")
        text = ast.get_source_segment(source, module) or ""
        assert len(text.splitlines()) > 20
        assert re.findall(r"fgadahat|\bfh\b|\bhat\b|session|mask|gate\b|regulari[sz]", text, re.IGNORECASE) == []


CLI = (str(ROOT / "examples/lightning_cli/main.py"), "fit", "--config", str(ROOT / "examples/lightning_cli/fit.yaml"))


def test_lightning_cli(tmp_path: Path) -> None:
    """One `fit` a task, each in a process of its own; the first task is tested again after the second."""
    first = run(*CLI, folder=tmp_path)
    second = run(*CLI, "--hat.task", "odd", "--hat.after", "tasks/even.ckpt", folder=tmp_path)
    assert re.findall(r"^even +([\d.]+)%$", first, re.MULTILINE) == re.findall(
        r"^even +([\d.]+)%$", second, re.MULTILINE
    )
    assert float(re.findall(r"^odd +([\d.]+)%$", second, re.MULTILINE)[0]) > 60
    saved = torch.load(tmp_path / "tasks" / "odd.ckpt", weights_only=True)
    (state,) = (part["session"] for key, part in saved["callbacks"].items() if key.startswith("TaskCallback"))
    assert [task["id"] for task in state["tasks"]] == ["even", "odd"]
    assert state["spec"]["adjustment"]["mode"] == "hat"
    result = start(*CLI, "--hat.task", "odd", "--hat.after", "checkpoints/last.ckpt", folder=tmp_path)
    assert "written by trainer.save_checkpoint after a task had ended, but there is one in the middle" in result.stderr


def test_a_wrong_spec_in_the_config_is_reported_with_all_its_problems(tmp_path: Path) -> None:
    text = Path(CLI[-1]).read_text(encoding="utf-8").replace("mode: hat", "mode: hatt").replace("norms:", "nom:")
    (tmp_path / "fit.yaml").write_text(text, encoding="utf-8")
    done = start(*CLI[:-1], "fit.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "The spec has 2 problems:" in done.stderr
    assert "got 'hatt'. Did you mean 'hat'?" in done.stderr
    assert "Did you mean 'norms'?" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["fit.yaml"]
