"""A row's page: what it says, what it comes from, and what became of it."""

from __future__ import annotations

from lineage.registry.pedigree.facts import RowPedigree
from lineage.registry.pedigree.marks import clip, page, section, text
from lineage.registry.pedigree.picture import tree

_SAID = 4_000  # characters of a row's text


def row_pedigree_html(facts: RowPedigree) -> str:
    """The facts as one self-contained page."""
    recall = facts.get("recall")
    banner = (
        f"<div class=recall><b>Called back.</b> Recall <code>{text(recall['id'])}</code> "
        f"({text(clip(recall['selector'], 200))}): {text(clip(recall['reason'], 600))}</div>"
        if recall
        else ""
    )
    answer = f"<p class=answer><b>→</b> {text(clip(facts['answer'], _SAID))}</p>" if facts["answer"] else ""
    said = f"<blockquote>{text(clip(facts['text'], _SAID))}{answer}</blockquote>"
    lines = "".join(
        f"<dt>{label}</dt><dd class=mono>{text(clip(value, 400))}</dd>"
        for label, value in facts["provenance"].items()
    )
    refused = "".join(f"<li>{text(clip(reason, 200))}</li>" for reason in facts["rejected"])
    family = tree(
        facts["nodes"], facts["edges"], facts["more"], label="What the row comes from, and what became of it"
    )
    return page(
        facts["row_id"][:12],
        [
            f"<header><p class=kicker>Pedigree of a row of {text(facts['table'])}</p>"
            f"<h1 class=mono>{text(facts['row_id'])}</h1>{banner}{said}</header>",
            section("Where from, and what became of it", family),
            section("Where it did not go on", f"<ul>{refused}</ul>" if refused else ""),
            section("What is known of it", f"<dl>{lines}</dl>"),
            "<footer>Stemma keeps this record in the lake; the page is a copy of it. "
            f"Ask again: <code>stemma lineage {text(facts['row_id'][:12])}</code></footer>",
        ],
    )
