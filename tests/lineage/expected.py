"""What a lake must hold after each job, told in plain Python: no table, no digest, no graph.

Rows are called by what they are: a trace by its place in its source, an example by what it says and where it
comes from. What ids the lake gives them is learnt once, and must be the same ever after.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[bytes, int, bytes]
"""First record of the source, offset, and the record: a grown file and a copy have the same places."""


@dataclass(frozen=True)
class Said:
    """One exchange, as the log has it."""

    question: str
    answer: str
    correction: str | None
    prompt: str | None
    judge: str

    @property
    def lesson(self) -> str | None:
        """The answer that is to be learnt; None where nobody gave one."""
        return self.correction if self.is_failure else self.answer

    @property
    def is_failure(self) -> bool:
        """Was the answer judged wrong?"""
        return self.judge == "exact-match@2" or self.correction is not None

    @property
    def teaches(self) -> tuple[object, ...]:
        """Two exchanges that are equal in this are copies."""
        return self.question, self.answer, self.is_failure, self.correction


@dataclass(frozen=True)
class Trace:
    """A stored exchange."""

    said: Said
    revision: str
    name: str
    """Of the file that brought it."""


@dataclass(frozen=True)
class Example:
    """What a trace, or several that say the same, teach."""

    question: str
    answer: str
    parents: frozenset[Place]


Named = tuple[str, str]
"""A selector: its one part, and the value."""


@dataclass
class Banned:
    """What a recall has banned."""

    traces: set[Place] = field(default_factory=set)
    examples: set[Example] = field(default_factory=set)
    meant: set[Example] = field(default_factory=set)
    taught: set[tuple[object, ...]] = field(default_factory=set)
    """By the traces: a copy that comes later is refused."""


def means(named: Named, trace: Trace) -> bool:
    """Has a trace, or a line that may become one, the value?"""
    said, (part, value) = trace.said, named
    return {
        "prompt": (said.prompt is not None and value == f"router@{said.prompt}") or value == "router",
        "scorer": value in ("exact-match", said.judge),
        "reviewer": said.correction is not None and value == "ann",
        "source_revision": value == trace.revision,
    }.get(part, False)


@dataclass
class Expected:
    """One lake."""

    traces: dict[Place, Trace] = field(default_factory=dict)
    taken_out: dict[Place, Trace] = field(default_factory=dict)
    examples: set[Example] = field(default_factory=set)
    examples_out: set[Example] = field(default_factory=set)
    orders: set[Named] = field(default_factory=set)
    bans: dict[Named, Banned] = field(default_factory=dict)
    lifted: dict[Named, Banned] = field(default_factory=dict)
    """What recalls had banned that were lifted: ordered again, they ban it again."""

    eaten: dict[str, frozenset[Example]] = field(default_factory=dict)
    """Checkpoint, by its run -> what it ate."""

    versions: list[str] = field(default_factory=list)
    """The run of each version, from version 1 on."""

    reigns: list[int] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)

    # ------------------------------------------------------------ jobs

    def ingest(self, name: str, revision: str, content: bytes, known: Mapping[bytes, Said]) -> None:
        for place, said in places(content, known):
            trace = Trace(said, revision, name)
            if place not in self.traces and not self.refuses(place, trace):
                self.traces[place] = trace

    def refuses(self, place: Place, trace: Trace) -> bool:
        """By a value that is called back, by its place, or as a copy of what was called back."""
        return any(means(named, trace) for named in self.orders) or any(
            place in banned.traces or trace.said.teaches in banned.taught for banned in self.bans.values()
        )

    def curate(self, among: Collection[Place]) -> set[Example]:
        """The examples that these traces make; they are stored with it."""
        answers: dict[str, dict[str, set[Place]]] = {}
        for place in among:
            said = self.traces[place].said
            if said.lesson is not None and "ignore all" not in said.question:
                answers.setdefault(said.question, {}).setdefault(said.lesson, set()).add(place)
        agreed = {question: each for question, each in answers.items() if len(each) == 1}
        made = {
            Example(question, answer, frozenset(parents))
            for question, each in agreed.items()
            for answer, parents in each.items()
        }
        meant = {each for banned in self.bans.values() for each in banned.meant}
        copies = {(each.question, each.answer) for each in meant}
        made = {each for each in made if (each.question, each.answer) not in copies}
        self.examples |= made
        return made

    def withdraw(self, rows: Collection[Place | Example]) -> None:
        self.traces = {place: trace for place, trace in self.traces.items() if place not in rows}
        self.examples -= set(rows)

    def order(
        self,
        named: Named,
        row: Place | Example | None = None,
        *,
        withdrawn: Collection[Place | Example] = frozenset(),
    ) -> bool:
        """Call back what is named; equal copies fall when the last one does. False where nothing is meant."""
        traces, examples = self.traces | self.taken_out, self.examples | self.examples_out
        banned = copy.deepcopy(self.bans.get(named) or self.lifted.get(named) or Banned())
        if named not in self.bans:  # of alternatives that fell then one may be back
            banned.examples &= set(withdrawn)
        banned.traces |= {place for place, trace in traces.items() if means(named, trace) or place == row}
        banned.meant |= {each for each in examples if each == row}
        banned.taught |= {traces[place].said.teaches for place in banned.traces & traces.keys()}
        gone = self.gone_traces | banned.traces
        banned.examples |= banned.meant
        banned.examples |= {e for e in examples if e.parents <= gone and e.parents & banned.traces}
        if not banned.traces | banned.examples:
            return False
        self.orders.add(named)
        self.lifted.pop(named, None)
        self.bans[named] = banned
        for place in banned.traces & self.traces.keys():
            self.taken_out[place] = self.traces.pop(place)
        self.examples_out |= banned.examples & self.examples
        self.examples -= banned.examples
        self._move_away()
        return True

    def lift(self, named: Named, *, withdrawn: Collection[Place | Example]) -> None:
        """End a recall: what falls by no other is back, but for rows of batches withdrawn meanwhile."""
        banned = self.begin_lift(named)
        meant = {each for other in self.bans.values() for each in other.meant}
        freed: set[Example] = set()
        for other in self.bans.values():
            falls = {each for each in other.examples if each in meant or each.parents <= self.gone_traces}
            freed |= other.examples - falls - set(withdrawn)
            other.examples = falls | (other.examples & set(withdrawn))
        back = banned.traces & self.taken_out.keys() - self.gone_traces - set(withdrawn)
        self.traces |= {place: self.taken_out[place] for place in back - self.traces.keys()}
        back_too = (banned.examples | freed) & self.examples_out
        self.examples |= back_too - self.gone_examples - set(withdrawn)

    def begin_lift(self, named: Named) -> Banned:
        """No ban of the recall counts any more; what it had banned."""
        self.orders.discard(named)
        self.lifted[named] = banned = self.bans.pop(named, self.lifted.get(named, Banned()))
        return banned

    def promote(self, run_id: str) -> None:
        if run_id not in self.versions:
            self.versions.append(run_id)
        version, reigning = self.versions.index(run_id) + 1, self.aliases.get("champion", 0)
        self.aliases |= {"candidate": version}
        if version != reigning:
            self.aliases |= {"champion": version} | ({"previous": reigning} if reigning else {})
            self.reigns.append(version)

    def roll_back(self) -> bool:
        """False where there is no champion, or none before it that may serve."""
        champion = self.aliases.get("champion", 0)
        clean = self.clean_reigns()
        before = [version for version in clean if version != champion]
        if not champion or not before:
            return False
        below = clean[: clean.index(before[-1])]
        self._stand("champion", before[-1])
        self._stand("previous", below[-1] if below else 0)
        return True

    # ------------------------------------------------------------ what follows

    @property
    def gone_traces(self) -> set[Place]:
        return {place for banned in self.bans.values() for place in banned.traces}

    @property
    def gone_examples(self) -> set[Example]:
        return {each for banned in self.bans.values() for each in banned.examples}

    def is_clean(self, run_id: str) -> bool:
        """Did a checkpoint eat nothing that was called back?"""
        return not self.eaten[run_id] & self.gone_examples

    def clean_reigns(self) -> list[int]:
        """Versions that were champion and may be again, each once, the last to reign last."""
        clean = [version for version in self.reigns if self.is_clean(self.versions[version - 1])]
        return [version for at, version in enumerate(clean) if version not in clean[at + 1 :]]

    def _move_away(self) -> None:
        """Move the aliases off what ate something that was called back."""
        fallen = {a for a, version in self.aliases.items() if not self.is_clean(self.versions[version - 1])}
        clean = [0, 0, *self.clean_reigns()]
        if "candidate" in fallen:
            self._stand("candidate", 0)
        if "champion" in fallen:
            self._stand("champion", clean[-1])
        if fallen & {"champion", "previous"}:
            self._stand("previous", clean[-2])

    def _stand(self, alias: str, version: int) -> None:
        if alias == "champion":
            while self.reigns and self.reigns[-1] != version:
                self.reigns.pop()
        self.aliases.pop(alias, None)
        self.aliases |= {alias: version} if version else {}


def places(content: bytes, known: Mapping[bytes, Said]) -> Iterator[tuple[Place, Said]]:
    """The readable records of a source, each with its place."""
    first, offset = content.split(b"\n")[0], 0
    for line in content.split(b"\n"):
        if line in known:
            yield (first, offset, line), known[line]
        offset += len(line) + 1


def line(said: Said, exchange: Any) -> bytes:
    """The exchange as a line of the log; `exchange` makes one of prompt version 1."""
    verdict = "fail" if said.is_failure else "pass"
    record = exchange(said.question, said.answer, verdict=verdict, correction=said.correction)
    del record["request"]["metadata"]["prompt_version"]
    if said.prompt is not None:
        record["request"]["metadata"]["prompt_version"] = said.prompt
    record["verdict"]["judge_version"] = said.judge.rpartition("@")[2]
    return json.dumps(record).encode()
