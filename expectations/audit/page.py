"""An audit as one page that needs nothing else: what slips through first, what is in order last.

Everything that comes out of a lake or a file is text: escaped, and what a reader cannot see shown as a box.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lineage.registry.pedigree.marks import clip, count, section, short, text
from lineage.registry.pedigree.style import STYLE

_ROWS = 200
"""Rows of a table that a page lists; --json has all."""

_MORE = """
.caught{color:var(--source)}.slipped,.crashed{color:var(--seal);font-weight:600}.score{font-size:34px}
.figures{display:flex;flex-wrap:wrap;gap:38px;margin:0 0 20px}.figures p{margin:0}
h3{margin:26px 0 8px}details{margin:8px 0}summary{cursor:pointer;color:var(--soft)}
"""


def audit_html(found: Mapping[str, Any]) -> str:
    """What `stemma audit --json` prints, as a page."""
    suites = found.get("suites") or []
    parts = [
        f"<header><p class=kicker>Audit of suites</p><h1>{_heading(found)}</h1>"
        f"<p class=lead>{_lead(found)}</p></header>",
        section("What slips through", _mutations(found.get("mutations"))),
        section("What another threshold would do", _what_if(found.get("what_if"))),
        section("Under which rules the model came to be", _model(found.get("model"))),
        *(section(f"Suite of {text(suite['name'])}", _suite(suite)) for suite in suites),
        "<footer>A copy of what the lake and the code said. Ask again: <code>stemma audit</code></footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of suites</title><style>{STYLE}{_MORE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _heading(found: Mapping[str, Any]) -> str:
    if found.get("model"):
        return text(found["model"]["model"] or found["model"]["run_id"])
    suites = found.get("suites") or []
    return text(suites[0]["name"]) if len(suites) == 1 else "All suites"


def _lead(found: Mapping[str, Any]) -> str:
    suites = found.get("suites") or []
    rules = sum(len(suite["rules"]) for suite in suites)
    told = [f"{rules} rules in {count(len(suites), 'suite')}"] if suites else []
    if found.get("lake"):
        told.append(f"lake {text(clip(found['lake'], 200))}")
    if found.get("at"):
        told.append(f"{text(found['at'][:16].replace('T', ' '))} UTC")
    return "; ".join(told)


def _mutations(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    mutants = found["mutants"]
    missing = [m for m in mutants if m["expected"] and m["fate"] not in ("caught", "not planted")]
    reasons = Counter(m["why_not"] for m in mutants if not m["expected"])
    figures = (
        f"<div class=figures><p><span class=score>{_percent(found['score'])}</span><br>"
        "of the damage that a gate can be expected to notice is noticed</p>"
        f"<p><span class=score>{_percent(found['raw_score'])}</span><br>of all that was planted</p></div>"
    )
    tables = _table(
        ("table", "rows", "planted", "expected", "caught", "score", "raw score"),
        [
            (
                t["table"],
                t["sample"],
                t["planted"],
                t["expected"],
                t["caught"],
                _percent(t["score"]),
                _percent(t["raw_score"]),
            )
            for t in found["tables"]
        ],
    )
    blind = [
        (table, ", ".join(rules))
        for kind in ("blind", "idle")
        for table, rules in found[kind].items()
        if rules
    ]
    return "".join(
        (
            figures,
            tables,
            "<h3>Slipped through</h3>",
            _table(
                ("corruption", "the rows that are hit", "share", "fate", ""),
                [
                    (
                        m["corruption"],
                        m["does"],
                        f"{m['rate']:.0%}" if m["rate"] else "one row",
                        m["fate"],
                        m["told"],
                    )
                    for m in missing
                ],
            ),
            "<h3>Not to be expected of a gate</h3>",
            _table(("corruptions", "why"), [(number, why) for why, number in reasons.most_common()]),
            "<h3>Rules that noticed nothing, or do not hold on sound rows</h3>" if blind else "",
            _table(("table", "rules"), blind),
            "<details><summary>Everything that was planted</summary>",
            _table(
                ("corruption", "family", "fate", "noticed by"),
                [(m["corruption"], m["family"], m["fate"], ", ".join(m["rules"])) for m in mutants],
                most=len(mutants),
            ),
            "</details>",
        )
    )


def _what_if(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    lead = (
        f"<p><code>{text(found['question'])}</code>, is {text(found['was'])}. "
        f"Rows that would break a rule: {len(found['broken']):,}; that would no longer: "
        f"{len(found['kept']):,}.</p>"
    )
    batches = _table(
        ("batch", "was", "would be", "rules"),
        [(b["batch"], b["was"], b["would_be"], ", ".join(b["rules"])) for b in found["batches"]],
    )
    names = ("batch", "row_id", "rule", "severity", "would", "value", "text")
    flips = [*found["broken"], *found["kept"]]
    rows = _table(
        ("batch", "row", *names[2:]),
        [[f[name][:12] if name == "row_id" else f[name] for name in names] for f in flips],
    )
    return lead + batches + rows


def _model(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return "".join(
        (
            f"<p>{found['rows']:,} rows, run <code>{text(found['run_id'])}</code>, step {found['step']}.</p>",
            _table(
                ("batch", "verdict", "gated", "by", "suite", "broken", "waived", "in force"),
                [
                    (
                        b["batch"],
                        b["outcome"],
                        b["at"][:16].replace("T", " "),
                        b["gated_by"],
                        short(b["suite_digest"]),
                        ", ".join(b["broken"]),
                        ", ".join(f"{rule} ({waiver})" for rule, waiver in b["waived"].items()),
                        ", ".join(waiver["rule"] for waiver in b["in_force"]),
                    )
                    for b in found["batches"]
                ],
            ),
            "<h3>Thresholds in force</h3>",
            _table(("table", "threshold", "value", "batches"), _thresholds(found["batches"])),
            "<h3>Never admitted</h3>" if found["unadmitted"] else "",
            _table(
                ("batch", "run"),
                [(each.get("batch", each["table"]), each["run_id"]) for each in found["unadmitted"]],
            ),
            "<h3>Who approved</h3>" if found["moves"] or found["reviews"] else "",
            _table(
                ("what", "alias", "by", "when", "why"),
                [(m["kind"], m["alias"], m["actor"], m["at"][:16], m["reason"]) for m in found["moves"]],
            ),
            _table(
                ("row", "review", "by", "when", "why"),
                [
                    (r["row_id"][:12], r["verdict"], r["reviewer"], r["at"][:16], r["reason"])
                    for r in found["reviews"]
                ],
            ),
        )
    )


def _thresholds(batches: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Each number in force once, with the batches that it was in force for; shares of 1 go without saying."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for batch in batches:
        for name, value in batch["thresholds"].items():
            if value != 1.0:
                found.setdefault((batch["table"], name, _value(value)), []).append(batch["batch"])
    return [(*key, ", ".join(named)) for key, named in sorted(found.items())]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_value(part)}" for name, part in value.items())
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def _suite(suite: Mapping[str, Any]) -> str:
    changes = [(c["at"][:10], c["by"], c["subject"], _differences(c) or "wording") for c in suite["commits"]]
    stretches = [
        (
            h["since"][:16],
            h["until"][:16],
            h["by"],
            short(h["suite_digest"]),
            h["verdicts"],
            ", ".join(f"{n} {o}" for o, n in sorted(h["outcomes"].items())),
            _differences(h),
        )
        for h in suite["history"]
    ]
    fates = [
        (
            r["batch"],
            r["was"],
            r["would_be"],
            r.get("error") or _rules(r["rules"]),
            _ids(r, "refused"),
            _ids(r, "passed"),
        )
        for r in suite["replayed"]
    ]
    cannot = [v for v in suite["vacuous"] if v["cannot_fail"]]
    return "".join(
        (
            f"<p>{len(suite['rules'])} rules, digest <code>{text(short(suite['suite_digest'], 16))}</code>, "
            f"{suite['is_judged']:,} batches judged.</p>",
            _part("Rules that cannot fail", ("rule", "why"), [(v["rule"], v["why"]) for v in cannot]),
            _part("Rules that contradict", ("rules", "column", "why"), _pairs(suite["contradictory"])),
            _part("Rules that repeat", ("rules", "column", "why"), _pairs(suite["duplicates"])),
            _part(
                "Drift",
                ("rule", "version", "is", "was", "p"),
                [
                    (
                        d["rule"],
                        d["version"],
                        f"{d['value']:g}",
                        f"{d['low']:g} to {d['high']:g}",
                        "" if d["p"] is None else f"{d['p']:.1g}",
                    )
                    for d in suite["drift"]
                ],
            ),
            _part(
                "Waivers in force",
                ("rule", "until", "by", "why"),
                [(w["rule"], w["until"][:10], w["by"], w["reason"]) for w in suite["waivers"]],
            ),
            _part(
                "Fates that the present suite changes",
                ("batch", "was", "would be", "rules", "rows that would break", "that no longer would"),
                fates,
            ),
            _part(
                "Columns without a rule",
                ("column", "meaning", "shown in"),
                [
                    (u["column"] or "(of the frame)", u["meaning"], ", ".join(u["shown_in"]))
                    for u in suite["uncovered"]
                ],
            ),
            _part(
                "Verdicts over time",
                ("since", "until", "first gated by", "suite", "verdicts", "outcomes", "changed"),
                stretches,
            ),
            _part("Who changed it", ("when", "who", "what", "rules"), changes),
        )
    )


def _part(heading: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"<h3>{heading}</h3>{_table(head, rows)}" if rows else ""


def _pairs(found: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [(" and ".join(each["rules"]), each["column"], each["why"]) for each in found]


def _differences(entry: Mapping[str, Any]) -> str:
    told = [f"+ {name}" for name in entry["rules_added"]] + [f"- {name}" for name in entry["rules_removed"]]
    told += [f"{rule}: {was} -> {now}" for rule, (was, now) in entry["thresholds_changed"].items()]
    return "; ".join(told)


def _rules(rules: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{rule}: {was} -> {now}" for rule, (was, now) in rules.items())


def _ids(entry: Mapping[str, Any], kind: str) -> str:
    found = entry.get(kind) or {}
    return "; ".join(
        f"{rule}: {len(ids):,} ({', '.join(i[:8] for i in ids[:3])})" for rule, ids in found.items()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, most: int = _ROWS) -> str:
    if not rows:
        return ""
    cells = "".join(
        "<tr>" + "".join(f"<td{_class(value)}>{text(clip(str(value), 500))}</td>" for value in row) + "</tr>"
        for row in rows[:most]
    )
    more = f"<p class=quiet>and {len(rows) - most:,} more; --json has all</p>" if len(rows) > most else ""
    names = "".join(f"<th>{name}</th>" for name in head)
    return (
        f"<div class=scroll><table><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table></div>{more}"
    )


def _class(value: Any) -> str:
    if value in ("caught", "slipped", "crashed"):
        return f" class={value}"
    return " class=num" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _percent(share: float | None) -> str:
    return "none planted" if share is None else f"{share:.1%}"
