"""Where from: nouns, ids, tables, runs, models, the graph between them, and recall."""
