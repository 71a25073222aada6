"""Write docs/api/spec.md from the fields' own descriptions: `python docs/generate_spec.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fgadahat_hooks as fh

PAGE = Path(__file__).parent / "api" / "spec.md"
HEAD = """\
# The spec, field by field

All fields except those marked *required* have defaults. A spec is a dict, an `AttachSpec`, or a file for `fh.load_spec`
(YAML or JSON). `fh.json_schema()`, or `fgadahat-hooks schema`, gives the schema that this page is made from.
All mistakes are reported at once, each with its path.
"""
ROW = "| field | values | default | meaning |\n|---|---|---|---|\n"
LIMITS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
LARGEST = 1e6
"""A limit above this is the machine's, not the method's."""
MEASURES = "the name of [a measure](../measures.md)"


def page() -> str:
    """Return the page."""
    schema = fh.json_schema()
    top = {name: field for name, field in schema["properties"].items() if "$ref" not in field and "oneOf" not in field}
    parts = [HEAD, f"## Top level\n\n{rows(top, ())}"]
    for name, field in schema["properties"].items():
        blocks = list(referred(schema, field))
        if blocks:
            parts.append(f"## {name}\n\n{field.get('description') or blocks[0]['description']}\n")
            parts += [block_text(block, alone=len(blocks) == 1) for block in blocks]
    return "\n".join(parts)


def referred(schema: dict[str, Any], field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the blocks that a field may hold; none if it holds a plain value."""
    for item in [field, *field.get("oneOf", ())]:
        if "$ref" in item:
            yield schema["$defs"][item["$ref"].rpartition("/")[2]]


def block_text(block: dict[str, Any], *, alone: bool) -> str:
    """Return a block's table, under the values that choose it unless it is the only one."""
    table = rows(block["properties"], block.get("required", ()))
    if alone:
        return table
    choice = next(iter(block["properties"].values()))
    names = ", ".join(f"`{name}`" for name in choice.get("enum", [choice.get("const")]))
    return f"### {names}\n\n{block['description']}\n\n{table}"


def rows(fields: dict[str, Any], required: object) -> str:
    """Return a table, one row per field."""
    needed = required if isinstance(required, list) else []
    lines = []
    for name, field in fields.items():
        empty = {} if field.get("type") == "object" else None
        default = "*required*" if name in needed else f"`{json.dumps(field.get('default', empty))}`"
        accepted = MEASURES if len(field.get("enum", ())) > len(fh.registry.strategies.names()) else values(field)
        lines.append(f"| `{name}` | {accepted} | {default} | {escape(field.get('description', ''))} |")
    return ROW + "\n".join(lines) + "\n"


def values(field: dict[str, Any]) -> str:
    """Describe the values that a field accepts."""
    if "anyOf" in field:
        return " or ".join(values(part) for part in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {values(field['items'])}"
    limits = {sign: field[key] for key, sign in LIMITS.items() if key in field and abs(field[key]) < LARGEST}
    text = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items())
    return f"{field.get('type', 'any value')} {text}".strip()


def escape(text: str) -> str:
    """Keep what is not meant as Markdown: bars, stars, and |e| of the equations."""
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
