"""The examples of distributed training run, in a smaller setting, and prove what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.tree import ROOT


def run(*command: str) -> str:
    """Run a Python command in the tree; return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_accelerate_vit() -> None:
    printed = run("examples/accelerate_vit.py", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical: yes" in printed
    assert len(re.findall(r"%\s+[\d.]+%\s+yes$", printed, re.MULTILINE)) == 2


def test_torchrun_ddp() -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = run(*launch, "examples/torchrun_ddp.py", "--tasks", "2", "--epochs", "1")
    assert "earlier tasks bit-identical on all 2 processes: yes" in printed
    assert len(re.findall(r"%$", printed, re.MULTILINE)) == 2
