"""Fit: plan, loop, evaluation, promotion. Every row that a checkpoint ate is on record."""
