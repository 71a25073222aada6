"""Random specs: valid ones survive every format; all others raise our own error, with a message."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

import fgadahat_hooks as fh
from fgadahat_hooks.errors import FgadahatError, SpecError
from fgadahat_hooks.spec.attach_spec import to_spec
from tests.property.random_specs import ANYTHING, VALID, Data, nearly_valid
from tests.support.small_models import Net, batch
from tests.support.snapshot import differences, snapshot

TRIES = settings().max_examples
MORE = settings(max_examples=5 * TRIES)  # they cost little
FEWER = settings(max_examples=TRIES // 5)
NOTES = st.sampled_from([*'{}[]:,-"#&*!|>%@`?\t\n\\ ', "!!python/object/apply:os.abort []", "\x00", "\ufeff", "1e999"])


def spec_or_none(call: Any) -> fh.AttachSpec | None:
    """Return what a call returns, or None if it raised our error, which has to name a problem."""
    try:
        found: fh.AttachSpec = call()
    except SpecError as error:
        problems = error.problems
    else:
        event("accepted")
        return found
    event("refused")
    assert problems
    assert all(problem.message.strip() for problem in problems)
    return None


@MORE
@given(VALID)
def test_a_valid_spec_survives_json_and_yaml(data: Data) -> None:
    spec = fh.load_spec(data)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("json", "yaml", "yml"):
            file = Path(folder, f"spec.{suffix}")
            fh.dump_spec(spec, file)
            assert fh.load_spec(file) == spec
    assert fh.load_spec(spec.model_dump()) == spec
    assert fh.load_spec(json.loads(json.dumps(data))) == spec


@MORE
@given(ANYTHING)
def test_of_anything_else_only_our_error_escapes(data: Any) -> None:
    spec = spec_or_none(lambda: to_spec(data))
    if spec is not None:
        assert fh.load_spec(spec.model_dump()) == spec


@MORE
@given(VALID, st.sampled_from(["json", "yaml"]), st.lists(st.tuples(st.floats(0, 1), NOTES | st.text(max_size=3))))
def test_of_a_spoilt_file_only_our_error_escapes(data: Data, suffix: str, edits: list[tuple[float, str]]) -> None:
    text = json.dumps(data) if suffix == "json" else yaml.safe_dump(data)
    for place, note in edits:
        at = int(place * len(text))
        text = text[:at] + note + text[at + len(note) // 2 :]
    _read(text.encode("utf-8", "surrogatepass"), suffix)


@MORE
@given(st.binary(max_size=40), st.sampled_from(["json", "yaml", "yml"]))
def test_of_bytes_only_our_error_escapes(data: bytes, suffix: str) -> None:
    _read(data, suffix)


def _read(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"spec.{suffix}")
        file.write_bytes(data)
        spec_or_none(lambda: fh.load_spec(file))


@FEWER
@given(nearly_valid() | VALID)
def test_an_attach_that_fails_leaves_the_model_alone(data: Data) -> None:
    model, x = Net(), batch(2)[0]
    before = snapshot(model, global_hooks=False)
    try:
        session = fh.attach(model, data, x)
    except FgadahatError as error:
        event(type(error).__name__)
    else:
        event("attached")
        session.detach()
    assert differences(before, snapshot(model, global_hooks=False)) == []
