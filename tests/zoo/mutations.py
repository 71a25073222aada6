"""Break one rule of the library at a time, and see that the sample notices each.

`python -m tests.zoo.mutations` copies the tree once a mutation, replaces one piece of source, and runs the sample,
which must fail. A mutation whose source is not found any more is an error too: then it has to be written anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("fgadahat_hooks", "adapters", "tests", "pyproject.toml")
TESTS = ("tests/zoo/test_sample.py",)


@dataclass(frozen=True)
class Mutation:
    """One rule to break.

    Attributes:
        rule: What holds without it.
        file: Path inside the package.
        old: A piece of source that stands there once.
        new: What it becomes.
    """

    rule: str
    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file below `root`.

        Raises:
            ValueError: The piece is not there, or more than once.
        """
        path = root / "fgadahat_hooks" / self.file
        source = path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(f"Expected once in {self.file}, but found {source.count(self.old)} times: {self.old!r}")
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")


MUTATIONS = (
    Mutation(
        "a norm takes zero to its bias: nothing passes through as zero",
        "tracing/mode.py",
        "return folds and self.recorder.gated_again(name, op.args[0], op.first_out, axis)",
        "self.recorder.store.put(op.first_out, self.uses._labels(op.args[0]))\n            return True",
    ),
    Mutation(
        "the same of a BatchNorm over several layers' channels",
        "tracing/regating.py",
        "return along(torch.where(line > LIVE, mine, LIVE), labels, axis)",
        "self.refuse(norm)\n        return labels",
    ),
    Mutation(
        "what is called zero behind a norm is gated there",
        "attach.py",
        "for name, channels in graph.regates.items():",
        "for name, channels in ():",
    ),
    Mutation(
        "a gate behind a norm whose statistics mix channels stands in front of it too",
        "attach.py",
        'if layer.position == "output":',
        'if layer.position == "output" and not graph.regates:',
    ),
    Mutation(
        "a gate moves behind a norm only if nothing else reads the layer",
        "tracing/resolve.py",
        "and not record.read_elsewhere and alone",
        "and alone",
    ),
    Mutation(
        "weights used functionally are gated by their rows, not by hooks on modules that never run",
        "tracing/resolve.py",
        "if record.hosts:",
        "if record.hosts and record.called:",
    ),
    Mutation(
        "inputs of a grouped convolution belong to the outputs of their group",
        "layers/conv.py",
        "rows = values.reshape(groups, -1)",
        "rows = values.reshape(-1, groups).t()",
    ),
    Mutation(
        "biases are protected with their units",
        "callbacks/rates.py",
        'parts = ("weight",) if layer.bias is None else ("weight", "bias")\n    return {local: Shared',
        'parts = ("weight",)\n    return {local: Shared',
    ),
    Mutation(
        "a bias added to a functional product is part of its output",
        "tracing/weights.py",
        "if bias is not None:",
        "if False:",
    ),
    Mutation(
        "all calls of a module count, not the first alone",
        "tracing/recorder.py",
        "record.inputs = labels.clone() if record.inputs is None else self.table.either(record.inputs, labels)",
        "record.inputs = labels.clone() if record.inputs is None else record.inputs",
    ),
    Mutation(
        "a sum is zero only if both terms are",
        "tracing/rules.py",
        "return call.table.either(*terms)",
        "return next(iter(terms))",
    ),
    Mutation(
        "sigmoid and softmax take zero to something else",
        "tracing/rules.py",
        '"relu relu6 gelu',
        '"sigmoid _softmax exp hardsigmoid relu relu6 gelu',
    ),
    Mutation(
        "a reduction unites what it reduces",
        "tracing/labels.py",
        'out[mixed] = torch.tensor(united, dtype=torch.int32, device="cpu")[where]',
        "out[mixed] = rows[mixed][:, 0]",
    ),
    Mutation(
        "concatenation and moves keep elements with their labels",
        "tracing/store.py",
        "period = self.run * self.values.numel()",
        "offset, period = 0, self.run * self.values.numel()",
    ),
    Mutation(
        "what is always live counts as always used",
        "graph.py",
        "return torch.where(live, torch.as_tensor(live_value, dtype=values.dtype, device=device), largest)",
        "return torch.where(live, torch.zeros_like(largest), largest)",
    ),
    Mutation(
        "of a product's sets each must have a unit on, and within a set one is enough",
        "graph.py",
        'sets = sets.scatter_reduce(0, feature * width + group, picked, "amax", include_self=False)',
        'sets = sets.scatter_reduce(0, feature * width + group, picked, "amin", include_self=False)',
    ),
    Mutation(
        "a transformed weight is used by every unit",
        "tracing/recorder.py",
        "record.whole = True\n",
        "record.whole = False\n",
    ),
    Mutation("norms are stored per task", "policy.py", '"per_task": "per_task"', '"per_task": "shared"'),
    Mutation(
        "what is neither gated, norm nor head stays as the first task left it",
        "policy.py",
        '"freeze": "frozen"',
        '"freeze": "shared"',
    ),
    Mutation(
        "heads are stored per task",
        "policy.py",
        '("per_task" if spec.heads.mode == "per_task" else "shared")',
        '"shared"',
    ),
    Mutation(
        "updates are held back, not gradients: momentum and weight decay move weights too",
        "callbacks/gradient_adjust.py",
        "part.go_back(self._rate_of(part))",
        "part.parameter.data.copy_(part.parameter)",
    ),
    Mutation(
        "a weight that two layers share takes no gate",
        "trace.py",
        "if all(owners[storage_key(p)] == 1 for",
        "if all(owners[storage_key(p)] >= 1 for",
    ),
)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[Path]:
    """Give a copy of the tree with one rule broken."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        root = Path(folder)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                skip = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(source, root / part, symlinks=True, ignore=skip)
            else:
                shutil.copy(source, root / part)
        mutation.apply(root)
        yield root


def is_caught(mutation: Mutation) -> bool:
    """Return whether the sample fails on the tree with a rule broken; the tests must have run."""
    with mutated(mutation) as root:
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 2 and more: not a failed test, but no test
        raise RuntimeError(f"The tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1


def main() -> int:
    """Run all mutations, or those whose rule holds a word; return the number that was not caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of the rule's text")
    wanted = [m for m in MUTATIONS if parser.parse_args().only in m.rule]
    missed = 0
    for mutation in wanted:
        caught = is_caught(mutation)
        missed += not caught
        print("caught" if caught else "MISSED", mutation.file, "-", mutation.rule, sep="  ", flush=True)  # noqa: T201
    print(f"{len(wanted) - missed} of {len(wanted)} caught")  # noqa: T201
    return missed


if __name__ == "__main__":
    sys.exit(main())
