"""Base models by name, those that a lake makes for itself included."""

from __future__ import annotations

from infra.models import BaseModel, resolve
from infra.settings import Settings


def resolve_base(settings: Settings, name: str) -> BaseModel:
    """A base model. Raises ModelError."""
    return resolve(name)
