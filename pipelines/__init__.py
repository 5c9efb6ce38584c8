"""Derive rows: readers turn sources into rows, steps rows into rows; the runner stamps and stores them."""
