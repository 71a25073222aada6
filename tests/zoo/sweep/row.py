"""What was found on one model, and the file it is kept in."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.tree import ROOT, package_files

FOLDER = ROOT / ".zoo"


@dataclass
class Kept:
    """Whether the first task kept its logits through the second one.

    Attributes:
        equal: Whether they are the same bits.
        worst: Largest absolute difference.
        moved: Share of the gated tensors that training changed.
        telling: Share of the gated layers whose weights reach the logits far above rounding: a leak of the others could
            not be seen.
    """

    equal: bool
    worst: float
    moved: float
    telling: float


@dataclass
class Inputs:
    """Layers, or input features of layers, by what the graph says of them against what random gates showed.

    Attributes:
        exact: Just what is true.
        over: Some zero inputs are thought to be fed by too many units.
        unresolved: Some zero inputs are thought to be always live.
        unsafe: Some inputs are thought to be zero and are not.
    """

    exact: int = 0
    over: int = 0
    unresolved: int = 0
    unsafe: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.exact + self.over + self.unresolved + self.unsafe


@dataclass
class Row:
    """What was found on one model; a part that was not reached is empty.

    Attributes:
        name: The subject's name.
        source: Fingerprint of the package's source; rows of another one are out of date.
        parameters: Number of parameters.
        layers: Gated layers.
        units: Their units.
        by_layer: Layers that the graph knows, heads included, by how well their inputs are known.
        by_input: Their input features likewise.
        closable: Input features that gates can make zero.
        unseen: Layers whose weight is only used transformed, or in parts: nothing could be compared.
        forward_seconds: Fastest of a few plain forwards.
        trace_seconds: Fastest of two traces of the same inputs.
        verified: Whether the static proof found no leak; None if it did not come to that.
        kept: By the name of the recipe.
        errors: What went wrong, the name of the part first.
        seconds: Of everything, start of the process left out.
        peak_mib: Largest memory of the process.
    """

    name: str
    source: str = ""
    parameters: int = 0
    layers: int = 0
    units: int = 0
    by_layer: Inputs = field(default_factory=Inputs)
    by_input: Inputs = field(default_factory=Inputs)
    closable: int = 0
    unseen: int = 0
    forward_seconds: float = 0.0
    trace_seconds: float = 0.0
    verified: bool | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_mib: int = 0

    @property
    def leaks(self) -> list[str]:
        """Say where finished tasks changed, or where the graph promises a zero that is none."""
        found = [f"{recipe}: logits changed by up to {k.worst:.1e}" for recipe, k in self.kept.items() if not k.equal]
        found += ["the static proof failed"] if self.verified is False else []
        return found + ([f"{self.by_input.unsafe} unsafe inputs"] if self.by_input.unsafe else [])

    @property
    def passed(self) -> bool:
        """Whether everything was reached and nothing leaked."""
        return not self.leaks and not self.errors

    def save(self, folder: Path = FOLDER) -> None:
        """Write the row to its file, whole or not at all."""
        path = file_of(self.name, folder)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)


def file_of(name: str, folder: Path = FOLDER) -> Path:
    """Return the file of a model's row."""
    return folder / f"{name.replace(' ', '_').replace('/', '_')}.json"


def load(name: str, folder: Path = FOLDER) -> Row | None:
    """Return a model's row; None if there is none."""
    path = file_of(name, folder)
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found["kept"] = {name: Kept(**kept) for name, kept in found["kept"].items()}
    found |= {part: Inputs(**found[part]) for part in ("by_layer", "by_input")}
    return Row(**found)


def fingerprint() -> str:
    """Return a short hash of the package's source."""
    digest = hashlib.sha256()
    for name, path in package_files().items():
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:10]
