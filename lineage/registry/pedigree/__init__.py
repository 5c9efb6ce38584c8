"""The pedigree of a model version, or of a row, as a page that a person reads and as JSON for a program.

    facts       what is known, as plain values; the JSON
    page        a model's page: header, then one section after the other
    picture     sources -> curriculum -> training run -> checkpoint -> alias; models before and after
    feeding     what it was fed: by provenance, by time, and row by row where there are few
    tree        a row's page: what it comes from and what became of it
    marks       text and numbers as all of them say them
    style       how it looks

Pure: the same facts give the same bytes. A page is one file without scripts or links, light or dark as the
reader's screen is. Everything on it is data that somebody else may have written, so everything is escaped.
"""

from lineage.registry.pedigree.facts import Pedigree, RowPedigree, pedigree_json
from lineage.registry.pedigree.page import pedigree_html
from lineage.registry.pedigree.tree import row_pedigree_html

__all__ = ["Pedigree", "RowPedigree", "pedigree_html", "pedigree_json", "row_pedigree_html"]
