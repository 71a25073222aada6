"""One rule, and the change of source that breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    """One rule to break.

    Attributes:
        rule: What holds without the mutation.
        model: The model of the sample that is examined first, because it is known to notice; or the file of tests that
            must fail, below the root of the project.
        file: Path inside the package.
        old: A piece of source that stands there once.
        new: What it becomes.
    """

    rule: str
    model: str
    file: str
    old: str
    new: str

    @property
    def by_tests(self) -> bool:
        """Whether tests must notice, instead of the sample."""
        return self.model.startswith("tests/")

    def applied(self, root: Path) -> str:
        """Return the source of the file below `root` with the rule broken.

        Raises:
            ValueError: The piece is not there, or more than once.
        """
        source = (root / "fgadahat_hooks" / self.file).read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(f"Expected once in {self.file}, but found {source.count(self.old)} times: {self.old!r}")
        return source.replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Change the file below `root`."""
        (root / "fgadahat_hooks" / self.file).write_text(self.applied(root), encoding="utf-8")
