"""What a model trained on an NF4 base is worth on published tasks, beside the baselines it is held against.

`pytest -s` prints the tables of docs/benchmarks.md. The claim is that the path is right, not that small
encoders need four bits. Trained on one thread, which beside other busy processes is the fastest.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from infra.inference import Predictor, Tagger
from infra.models import resolve
from infra.models.tagging import Word, spans_of
from lineage.spans import Span, write_spans
from training.assignment import assign
from training.baselines import linear_probe, linear_tagger, tfidf_svm
from training.fit import fit
from training.metrics import accuracy, bootstrap_interval, entity_f1
from training.recipe import TrainingConfig

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(
        "STEMMA_TEST_DATA" not in os.environ, reason="a quarter of an hour: name the data in STEMMA_TEST_DATA"
    ),
]

NF4, PROBE, SVM = "MiniLM, adapters on NF4", "linear probe on frozen embeddings", "TF-IDF + linear SVM"
SEEN = "what was an entity in training"
PUBLISHED = {"arcada": 39.98, "drexel_cci": 26.30, "flytxt": 38.35, "mic-cis": 37.06}
"""F1 entity of systems of WNUT-17 in percent (Derczynski et al. 2017, results of the shared task)."""


@pytest.fixture(scope="module")
def base():
    return resolve("all-MiniLM-L6-v2")


class Training(NamedTuple):
    """An adapter, and the seconds that its making took: by the clock, and of all cores together."""

    adapter: str
    seconds: float
    core_seconds: float


def trained(base, texts: Sequence[str], answers: Sequence[str], config: TrainingConfig, to: Path) -> Training:
    ids = [hashlib.sha256(f"{n} {text}".encode()).digest()[:16] for n, text in enumerate(texts)]
    columns = {"row_no": range(len(texts)), "row_id": ids, "text": list(texts), "answer": list(answers)}
    start, busy = time.monotonic(), time.process_time()
    fitted = fit(
        assign(pa.table(columns), config, base),
        run_id="real",
        work=str(to / "work"),
        out_dir=str(to / "adapter"),
        storage_path=str(to / "ray"),
    )
    assert fitted.trained.in_force["bnb_4bit_quant_type"] == "nf4"
    return Training(fitted.adapter_dir, time.monotonic() - start, time.process_time() - busy)


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().replace("\r\n", "\n").rstrip("\n").split("\n")


def show(title: str, rows: Sequence[Sequence[str]], trainings: Sequence[Training]) -> None:
    seconds, core_seconds = (np.mean([each[n] for each in trainings]) for n in (1, 2))
    print(f"\n{title}; trained in {seconds:.0f} s ({core_seconds:.0f} core seconds)")
    for name, *cells in rows:
        print(f"{name:<36}" + "".join(f"{cell:>17}" for cell in cells))


@pytest.mark.timeout(3600)
def test_thirty_intents_of_clinc150_are_told_apart(base, data, tmp_path):
    folder = data / "clinc150_dev75"
    sets = json.loads(gzip.decompress((folder / "data_dev75.json.gz").read_bytes()))
    domains = json.loads(gzip.decompress((folder / "subset_30_dev.json.gz").read_bytes()))
    wanted = {intent for intents in domains.values() for intent in intents}
    (texts, labels), (asked, truth) = (
        zip(*((text, intent) for text, intent in sets[split] if intent in wanted), strict=True)
        for split in ("train", "test")
    )
    assert (len(wanted), len(texts), len(asked)) == (30, 3000, 900)

    training = trained(base, texts, labels, TrainingConfig(), tmp_path)
    answers = {
        NF4: [p.label for p in Predictor.load(base, training.adapter).predict(asked)],
        PROBE: linear_probe(base, texts, labels, asked),
        SVM: tfidf_svm(texts, labels, asked),
    }
    rows = []
    for name, said in answers.items():
        low, high = bootstrap_interval([a == b for a, b in zip(truth, said, strict=True)], seed=0)
        rows.append((name, f"{accuracy(truth, said):.1%}", f"[{low:.1%}, {high:.1%}]"))
    show("CLINC150, 30 intents, accuracy", rows, [training])
    assert accuracy(truth, answers[NF4]) >= 0.96


@pytest.mark.timeout(3600)
def test_spam_is_found_among_distinct_messages(base, data, tmp_path):
    lines = lines_of(data / "sms_spam" / "SMSSpamCollection_first80.tsv.gz")
    labels, texts = map(np.array, zip(*(line.split("\t", 1) for line in dict.fromkeys(lines)), strict=True))
    assert (len(texts), len(set(texts)), int((labels == "spam").sum())) == (4171, 4171, 537)

    config = TrainingConfig(max_length=96)
    scores: dict[str, list[float]] = {}
    trainings = []
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(texts, labels)
    for split, (seen, held) in enumerate(splits):
        given = (texts[seen].tolist(), labels[seen].tolist())
        asked, truth = texts[held].tolist(), labels[held]
        trainings.append(trained(base, *given, config, tmp_path / str(split)))
        answers = {
            NF4: [p.label for p in Predictor.load(base, trainings[-1].adapter).predict(asked)],
            PROBE: linear_probe(base, *given, asked),
            SVM: tfidf_svm(*given, asked),
        }
        for name, said in answers.items():
            scores.setdefault(name, []).append(float(f1_score(truth, said, pos_label="spam")))
        print(f"split {split}:", " ".join(f"{name} {found[-1]:.3f}" for name, found in scores.items()))
    rows = []
    for name, found in scores.items():
        mean, half = np.mean(found), stats.t.ppf(0.975, 4) * np.std(found, ddof=1) / 5**0.5
        rows.append((name, f"{mean:.3f}", f"[{mean - half:.3f}, {mean + half:.3f}]"))
    show("SMS spam, mean F1 of 5 splits", rows, trainings)
    assert np.mean(scores[NF4]) >= 0.95


class Sentence(NamedTuple):
    """Words and the tag of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def entities(self) -> tuple[Span, ...]:
        """Characters of the text."""
        places, start = [], 0
        for number, word in enumerate(self.words):
            places.append(Word(number, start, start + len(word)))
            start += len(word) + 1
        found = spans_of(places, self.tags, [1.0] * len(self.tags))
        return tuple(Span(span.start, span.end, span.label) for span in found)


def sentences(path: Path) -> list[Sentence]:
    """A line is a word and its tag; an empty line ends a sentence."""
    found, pairs = [], []
    for line in [*lines_of(path), ""]:
        if line.strip():
            pairs.append(line.rsplit(maxsplit=1))
        elif pairs:
            found.append(Sentence(*zip(*pairs, strict=True)))
            pairs = []
    return found


@pytest.mark.timeout(3600)
def test_emerging_entities_of_wnut17_are_found(base, data, tmp_path):
    folder = data / "wnut17_ner"
    train = sentences(folder / "wnut17train.conll.gz")
    asked = sentences(folder / "emerging.test.annotated.conll.gz")
    texts, truth = [s.text for s in asked], [s.entities for s in asked]
    assert (len(train), len(asked), sum(map(len, truth))) == (3394, 1287, 1079)
    assert not any(tagged_as_seen(train, asked))  # by design: none of the training set's entities recurs
    train += sentences(folder / "emerging.dev.conll.gz")

    config = TrainingConfig(objective="token_classification", num_train_epochs=3, max_length=128)
    given = ([s.text for s in train], [s.entities for s in train])
    training = trained(base, given[0], [write_spans(entities) for entities in given[1]], config, tmp_path)
    answers = {
        NF4: Tagger.load(base, training.adapter).tag(texts),
        PROBE: linear_tagger(base, *given, texts),
        SVM: tagged_by_neighbours(train, asked),
        SEEN: tagged_as_seen(train, asked),
    }
    for system in PUBLISHED:
        found = sentences(folder / f"submission_{system}.conll.gz")
        # one of them spells some words otherwise, but none has more or fewer
        answers[f"published: {system}"] = [
            true._replace(tags=said.tags).entities for true, said in zip(asked, found, strict=True)
        ]
    scores = {name: entity_f1(truth, said) for name, said in answers.items()}
    rows = [
        (name, *(f"{share:.2%}" for share in (score.f1, score.precision, score.recall)))
        for name, score in scores.items()
    ]
    show("WNUT-17, F1 entity, precision, recall", rows, [training])
    for system, published in PUBLISHED.items():
        assert round(100 * scores[f"published: {system}"].f1, 2) == published
    assert scores[NF4].f1 > max(scores[name].f1 for name in (PROBE, SVM, SEEN)) + 0.1


def tagged_by_neighbours(seen: Sequence[Sentence], asked: Sequence[Sentence]) -> list[tuple[Span, ...]]:
    """Each word's tag by its spelling and that of the words beside it, each marked by where it stands."""

    def described(sentence: Sentence) -> list[str]:
        words = sentence.words
        beside = zip(("^", *words), words, (*words[1:], "$"), strict=False)
        return [f"{word} <{before} >{after}" for before, word, after in beside]

    tags = [tag for sentence in seen for tag in sentence.tags]
    given = [line for sentence in seen for line in described(sentence)]
    wanted = [line for sentence in asked for line in described(sentence)]
    said = iter(tfidf_svm(given, tags, wanted))
    return [s._replace(tags=tuple(next(said) for _ in s.words)).entities for s in asked]


def tagged_as_seen(seen: Sequence[Sentence], asked: Sequence[Sentence]) -> list[tuple[Span, ...]]:
    """The longest words that were an entity in training are one again, of the kind that they mostly were."""
    kinds: dict[tuple[str, ...], Counter[str]] = {}
    for sentence in seen:
        for entity in sentence.entities:
            words = tuple(sentence.text[entity.start : entity.end].split(" "))
            kinds.setdefault(words, Counter())[entity.label] += 1
    longest = max(map(len, kinds))
    answers = []
    for sentence in asked:
        tags, place = ["O"] * len(sentence.words), 0
        while place < len(tags):
            spans = (sentence.words[place : place + n] for n in range(longest, 0, -1))
            known = next((words for words in spans if words in kinds), None)
            if known:
                (kind, _), *_ = kinds[known].most_common(1)
                tags[place : place + len(known)] = [f"B-{kind}", *[f"I-{kind}"] * (len(known) - 1)]
            place += len(known or " ")
        answers.append(Sentence(sentence.words, tuple(tags)).entities)
    return answers
