"""All models that the sweep goes through."""

from __future__ import annotations

from fnmatch import fnmatchcase

from tests.zoo.sweep import odd_models, timm_models, torchvision_models, transformers_models
from tests.zoo.sweep.subject import Subject

FAMILIES = {
    "torchvision": torchvision_models.subjects,
    "timm": timm_models.subjects,
    "transformers": transformers_models.subjects,
    "odd": odd_models.subjects,
}


def catalogue(pattern: str = "*") -> dict[str, Subject]:
    """Return the subjects whose name fits a glob, or contains it, in the order of the table."""
    found = (subject for subjects in FAMILIES.values() for subject in subjects())
    return {s.name: s for s in found if pattern in s.name or fnmatchcase(s.name, pattern)}


def subject(name: str) -> Subject:
    """Return one subject by its name."""
    return catalogue(name)[name]
