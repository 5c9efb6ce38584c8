"""Worked examples: each builds its own data, runs the whole path and shows what came of it."""
