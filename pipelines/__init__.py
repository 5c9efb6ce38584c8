"""Derive rows: readers turn sources into rows, steps turn rows into rows, the runner stamps and stores them."""
