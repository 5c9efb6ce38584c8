"""Sums for the tiny decoder: answers in steps to learn from, and a log of wrong direct ones."""
