"""The rules, thresholds and expectations as Markdown: docs/expectations.md, which `make docs` writes."""

from __future__ import annotations

import inspect
import json
from typing import Any

from expectations.gx import quiet
from expectations.suites import SUITES
from expectations.suites.toml import TEXTS
from expectations.thresholds import DEFAULTS, Thresholds
from lineage.waivers import NEVER

_HEAD = """# Rules: what a batch must be, and how to write your own

Made from the code by `make docs`. What a gate is: [expectations/README.md](../expectations/README.md).

A rule is an expectation of Great Expectations with a name, a sentence and a reason. It reads columns of the
view of its table; a null there means that the rule is not about the row. What breaks a **critical** rule is
refused; a **warning** is a rule of thumb, shown in every report.

## Your own suite, in TOML

```toml
table = "examples"                 # whose rows are judged
extends = true                     # the shipped rules stay in force; false: those of lineage only
may_be_empty = false               # may a batch hold no row?

[[rules]]
rule = "answers_short"             # its name: in verdicts, in waivers
type = "expect_column_values_to_be_between"
kwargs = { column = "answer_characters", max_value = 120 }
sentence = "an answer has at most 120 characters"
why = "our screen has two lines"
severity = "warning"               # or critical, which is what is meant without it
```

`stemma gate examples@7 --set 'suites=["mine.toml"]'` judges by it, and so does a gate's config with
`suites = ["mine.toml"]`, which `ingest` and `curate` take as `--gate-config`. In Python it is
`Suite.from_toml("mine.toml")`, and `admit(runtime, "examples@7", suites={"examples": suite})`.
Types are those of Great Expectations' gallery, and ours below. An unknown type, argument or column, or
a regex that does not compile, is told in one sentence before a row is read.

With `extends = false` the shipped rules are out of force, but for those that lineage and recall rest on,
which nobody can waive either: __NEVER__.
`batch_not_empty` stays unless the file says `may_be_empty = true`.

A rule reads columns of the shipped view, whose names are told where one is wrong, and the texts themselves:
__TEXTS__.
Values that break a rule are shown in reports, and so are texts.

A relative path in `suites` is looked for beside the config's file, and in the current folder where there is
none. A table has one suite: a config that names two of it is refused. `critical = ["answers_sized"]` in a
config lets a rule refuse that only warns by itself, shipped or of one's own.

## Your own suite, in Great Expectations' way

```python
import great_expectations as gx
import great_expectations.expectations as gxe
from expectations.custom import ExpectColumnValuesToHold  # importing it registers ours
from expectations.suites import SUITES

suite = gx.ExpectationSuite(
    "mine",
    expectations=[
        gxe.ExpectColumnValuesToBeBetween(column="answer_characters", max_value=120),
        ExpectColumnValuesToHold(column="is_decoded", mostly=0.99),
    ],
)
frame = SUITES["examples"].frame(batch, admitted)  # the view, as a pandas frame
result = gx.get_context().data_sources.pandas_default.read_dataframe(frame).validate(suite)
```
"""


def catalogue() -> str:
    """The whole page."""
    with quiet():
        from expectations.custom import CLASSES

        parts = [_head(), "## Our expectations\n", *map(_expectation, CLASSES)]
        parts += ["## The shipped rules\n", *(_suite(name) for name in SUITES)]
    return "\n".join([*parts, "## Thresholds\n", _thresholds()])


def _head() -> str:
    texts = "; ".join(
        f"{table} {' and '.join(f'`{name}`' for name in names)}" for table, names in TEXTS.items()
    )
    never = ", ".join(f"`{name}`" for name in sorted(NEVER))
    return _HEAD.replace("__NEVER__", never).replace(
        "__TEXTS__", f"{texts} (`question` is what the user said last)"
    )


def _expectation(kind: Any) -> str:
    lines = [f"### `{kind.expectation_type}`\n", f"{inspect.getdoc(kind)}\n"]
    lines += ["| example | rows | arguments | holds |", "| --- | --- | --- | --- |"]
    for example in kind.examples:
        for test in example["tests"]:
            rows = f"`{_json(example['data'])}`"
            holds = "yes" if test["out"]["success"] else "no"
            lines.append(f"| {test['title']} | {rows} | `{_json(test['in'])}` | {holds} |")
    return "\n".join([*lines, ""])


def _suite(name: str) -> str:
    lines = [f"### {name}\n", "| rule | | what it expects | why | cites |", "| --- | --- | --- | --- | --- |"]
    for rule in SUITES[name].build(DEFAULTS).expectations:
        meta = rule.meta or {}
        said = (rule.description, rule.notes, meta.get("cites", ""))
        warns = "warns" if rule.severity == "warning" else ""
        lines.append(f"| `{meta['rule']}` | {warns} | {' | '.join(map(_cell, said))} |")
    return "\n".join([*lines, ""])


def _thresholds() -> str:
    lines = ["| threshold | default | what it is |", "| --- | --- | --- |"]
    for name, field in Thresholds.model_fields.items():
        value = _json(getattr(DEFAULTS, name))
        lines.append(f"| `{name}` | {value} | {_cell(field.description)} |")
    return "\n".join([*lines, ""])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cell(text: Any) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(catalogue(), end="")
