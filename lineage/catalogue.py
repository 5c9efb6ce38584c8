"""The catalogue of tables as Markdown: `python -m lineage.catalogue > docs/tables.md`."""

from __future__ import annotations

import pyarrow as pa

from lineage.schemas import MESSAGE, PROVENANCE, ROW_TABLES, TABLES, TIMESTAMP, Column


def catalogue() -> str:
    """The catalogue of tables as Markdown: docs/tables.md."""
    lines = ["# Tables", "", "Generated from `lineage/schemas.py` by `make docs`; change it there.", ""]
    lines += [
        "## Provenance columns",
        "",
        "On every row of " + ", ".join(f"`{t.name}`" for t in ROW_TABLES) + ".",
    ]
    lines += ["", *_columns(PROVENANCE)]
    for spec in TABLES.values():
        lines += ["", f"## {spec.name}", "", spec.purpose, ""]
        lines += [f"Key: {', '.join(f'`{key}`' for key in spec.keys)}. Written by `{spec.writer}` alone.", ""]
        lines += _columns(spec.own)
        if spec.provenance:
            lines += ["", "And the provenance columns."]
    return "\n".join(lines) + "\n"


def _columns(columns: tuple[Column, ...]) -> list[str]:
    head = ["| column | type | meaning |", "|---|---|---|"]
    return head + [
        f"| `{column.name}` | {_type(column.type)}{', may be null' if column.nullable else ''} "
        f"| {column.meaning} |"
        for column in columns
    ]


def _type(kind: pa.DataType) -> str:
    if kind == pa.list_(MESSAGE):
        return "list of messages (" + ", ".join(f"`{field.name}`" for field in MESSAGE) + ")"
    if pa.types.is_list(kind):
        return f"list of {kind.value_type}"
    return "timestamp (us, UTC)" if kind == TIMESTAMP else str(kind)


if __name__ == "__main__":
    print(catalogue(), end="")
