"""Run the sample on a copy of the tree with one rule broken.

Torch and the libraries of models are loaded once; each mutation gets a fork of this process, which then loads the
package and the tests from the copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tests.zoo.mutations.mutation import Mutation

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("fgadahat_hooks", "adapters", "tests", "pyproject.toml")
LIBRARIES = ("torch", "torch._dynamo", "torchvision.models", "timm", "transformers", "pydantic", "yaml", "pytest")
_FORK = get_context("fork")


@dataclass(frozen=True)
class MutationResult:
    """What became of one mutation.

    Attributes:
        model: The first model of the sample that failed; empty if none did.
        complaint: Why.
        broken: What kept the sample from being examined; empty if nothing did.
    """

    model: str = ""
    complaint: str = ""
    broken: str = ""


def load_libraries() -> None:
    """Load once what every mutation needs and no mutation changes, with one thread, so that forks are safe."""
    for name in LIBRARIES:
        import_module(name)
    import_module("torch").set_num_threads(1)


def result_of(mutation: Mutation) -> MutationResult:
    """Return which model of the sample notices that a rule is broken."""
    try:
        with mutated(mutation) as root:
            if mutation.by_tests:
                return _failing_test(root, mutation.model)
            receiver, sender = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_examine, args=(root, mutation.model, sender))
            process.start()
            sender.close()
            found = MutationResult(**receiver.recv())
            process.join()
    except EOFError:
        return MutationResult(broken="The process died.")
    except ValueError as error:
        return MutationResult(broken=str(error))
    return found


@contextmanager
def mutated(mutation: Mutation) -> Iterator[Path]:
    """Give a copy of the tree with one rule broken."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        root = Path(folder).resolve()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                skip = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(source, root / part, symlinks=True, ignore=skip)
            else:
                shutil.copy(source, root / part)
        mutation.apply(root)
        yield root


def _failing_test(root: Path, tests: str) -> MutationResult:
    """Return the first of some tests that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    found = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED ")]
    if found.returncode == 1 and failed:
        return MutationResult(tests, failed[0].removeprefix("FAILED ").partition(" - ")[0].rpartition("::")[2])
    return MutationResult(broken="" if found.returncode == 0 else found.stdout[-300:] + found.stderr[-300:])


# ------------------------------------------------------------------ in the fork
def _examine(root: Path, first: str, sender: Connection) -> None:
    try:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".* had changed .*, and were put back")  # a second net caught it
        _turn_to(root)
        found = _first_to_notice(first)
    except Exception as error:
        found = MutationResult(broken=f"{type(error).__name__}: {error}")
    sender.send(asdict(found))  # its class is another one here


def _turn_to(root: Path) -> None:
    """Forget the package and the tests, and find those of the copy from now on."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("fgadahat_hooks", "tests")]:
        del sys.modules[name]
    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    found = Path(str(import_module("fgadahat_hooks").__file__)).resolve()
    if root not in found.parents:
        raise RuntimeError(f"Expected the package below {root}, but found it at {found}.")


def _first_to_notice(first: str) -> MutationResult:
    sample = import_module("tests.zoo.test_sample")
    for name in sorted(sample.SAMPLE, key=lambda name: bool(name != first)):
        complaints = sample.complaints(name)
        if complaints:
            return MutationResult(name, complaints[0].partition("\n")[0])
    return MutationResult()
