"""What is trained on is never what is scored: an input that stands on one split goes on no other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from lineage.inputs import inputs
from lineage.rows import Derivation, Rejection
from lineage.schemas import EXAMPLE
from pipelines.step import Step, keep


@dataclass(frozen=True)
class KeepSplitsApart(Step):
    """Rejects rows that ask what an admitted example of another split asks."""

    elsewhere: frozenset[str]
    """What the other splits ask, as lineage.inputs gives it."""

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    identifies: ClassVar = False
    binds: ClassVar = True  # whatever a person says of a row, it is not trained on and scored on

    @property
    def parameters(self) -> dict[str, Any]:
        """A digest stands for the inputs, which may be many."""
        digest = hashlib.sha256("\n".join(sorted(self.elsewhere)).encode("utf-8", "surrogatepass"))
        return {"elsewhere": digest.hexdigest()}

    def derive(self, rows: pa.Table) -> Derivation:
        """One row in, one row out or a reason."""
        asked = inputs(rows)
        kept = [index for index, question in enumerate(asked) if question not in self.elsewhere]
        reason = Rejection("on_another_split", scorer=self.name, scorer_revision=str(self.revision))
        rejected = {index: reason for index, question in enumerate(asked) if question in self.elsewhere}
        return Derivation(keep(rows, kept), [(index,) for index in kept], rejected)
