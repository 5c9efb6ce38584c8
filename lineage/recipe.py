"""What a model is made from: a recipe of data, hyperparameters and strategy, and the digest that names it.

    recipe = Recipe(data={"hard_share": 0.5}, hyperparameters={"learning_rate": 0.002}, strategy={})
    recipe.edit({"hyperparameters.learning_rate": 0.0005})  # another recipe, with another digest
    recipe.key                                              # 16 hex digits: its vertex in a search

Two recipes that say the same are one recipe. The order of keys does not count, and neither does how a whole
number is written: 1, 1.0 and 1e0 are settled as the integer 1 before anything is hashed or handed out.
true is not 1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lineage.rows import canonical_json

PARTS = ("data", "hyperparameters", "strategy")
KEY_DIGITS = 16  # 64 bits: 2**32 recipes before two keys are as likely as not to meet


class RecipeError(ValueError):
    """A recipe holds something that is not JSON, or lacks what was named; the message says where."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """Three mappings of JSON values, frozen all the way down: objects are read-only, lists are tuples.

    Raises RecipeError on a value that JSON cannot say (NaN, infinity, bytes, a key that is not text).
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    strategy: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Settle and freeze the parts."""
        for part in PARTS:
            given = getattr(self, part)
            if not isinstance(given, Mapping):
                raise RecipeError(f"'{part}' of a recipe is a {type(given).__name__}, expected a mapping")
            object.__setattr__(self, part, _settled(given, part))

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe that a JSON text describes. Raises RecipeError unless it has exactly the three parts."""
        found = json.loads(text)
        if not isinstance(found, dict) or set(found) != set(PARTS):
            raise RecipeError(f"a recipe is a JSON object of {', '.join(PARTS)}; found: {text[:80]}")
        return cls(**found)

    @property
    def text(self) -> str:
        """Canonical JSON: equal texts, equal recipes."""
        return canonical_json(self.as_json()).decode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def key(self) -> str:
        """The first 16 hex digits of the digest: what the recipe's vertex is called."""
        return self.digest[:KEY_DIGITS]

    def as_json(self) -> dict[str, Any]:
        """A copy in plain dicts and lists, free to be changed."""
        return {part: _plain(getattr(self, part)) for part in PARTS}

    def at(self, path: str) -> Any:
        """The value at a path, as 'hyperparameters.learning_rate'. Raises RecipeError where there is none.

        A key that has a dot in it can be held, but no path leads to it.
        """
        value: Any = {part: getattr(self, part) for part in PARTS}
        for step in path.split("."):
            if not isinstance(value, Mapping) or step not in value:
                known = ", ".join(sorted(leaf for leaf, _ in self.leaves())) or "nothing"
                raise RecipeError(f"the recipe has no '{path}'; it has: {known}")
            value = value[step]
        return value

    def edit(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with other values at these paths. Raises RecipeError on a path that it does not have."""
        edited = self.as_json()
        for path, value in changes.items():
            self.at(path)
            *folders, name = path.split(".")
            place: Any = edited
            for folder in folders:
                place = place.get(folder) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise RecipeError(
                    f"'{path}' lies inside a value that the same edit replaces; name one of the two"
                )
            place[name] = value
        return Recipe(**edited)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Path and value of everything that is not a non-empty object, parts in order, names sorted."""
        for part in PARTS:
            yield from _leaves(getattr(self, part), part)

    def edits_since(self, base: Recipe) -> tuple[str, ...]:
        """What differs from another recipe, in words: 'hyperparameters.learning_rate: 0.002 -> 0.0005'."""
        before, after = dict(base.leaves()), dict(self.leaves())
        return tuple(
            f"{path}: {_word(before, path)} -> {_word(after, path)}"
            for path in dict.fromkeys((*before, *after))
            if _word(before, path) != _word(after, path)
        )

    def __eq__(self, other: object) -> bool:
        """By text, for Python holds True == 1 and a recipe does not."""
        return self.text == other.text if isinstance(other, Recipe) else NotImplemented

    def __hash__(self) -> int:
        """As equality has it."""
        return hash(self.text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to workers as its text: read-only mappings cannot be pickled."""
        return Recipe.parse, (self.text,)


def _settled(value: Any, path: str) -> Any:
    """The value as it is kept: JSON only, whole numbers as integers, nothing that can be changed."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecipeError(
                f"'{path}' of a recipe is {value}, which JSON cannot say; expected a finite number"
            )
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise RecipeError(f"'{path}' of a recipe has the key {name!r}; expected text")
        return MappingProxyType({name: _settled(value[name], f"{path}.{name}") for name in sorted(value)})
    if isinstance(value, list | tuple):
        return tuple(_settled(item, f"{path}[{position}]") for position, item in enumerate(value))
    raise RecipeError(f"'{path}' of a recipe is a {type(value).__name__}; expected a JSON value")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif path not in PARTS:
        yield path, value


def _word(leaves: Mapping[str, Any], path: str) -> str:
    return canonical_json(_plain(leaves[path])).decode() if path in leaves else "absent"
