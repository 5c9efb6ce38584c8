"""Simple baselines beside every score: what a model must beat to have shown anything but the path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from infra.inference import embed
from infra.inference.batches import batches, each
from infra.models import BaseModel, TaggedSpan, bio_labels, encode_tags, load_encoder, load_tokenizer
from infra.models.tagging import NO_LOSS, spans_of, split_words
from lineage.spans import Span

if TYPE_CHECKING:
    import torch


def linear_probe(
    base: BaseModel, texts: Sequence[str], labels: Sequence[str], asked: Sequence[str], *, seed: int = 0
) -> list[str]:
    """Answers of a logistic regression on the frozen base's embeddings, trained on texts and labels."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    vectors = embed(base, [*texts, *asked])
    probe = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    # The steps are of microseconds: threads would mostly wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        probe.fit(vectors[: len(texts)], np.asarray(labels))
        return [str(label) for label in probe.predict(vectors[len(texts) :])]


def tfidf_svm(
    texts: Sequence[str], labels: Sequence[str], asked: Sequence[str], *, seed: int = 0
) -> list[str]:
    """Answers of a linear SVM on TF-IDF weights of words, pairs of words and parts of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    svm = make_pipeline(make_union(words, parts), LinearSVC(random_state=seed))
    svm.fit(texts, np.asarray(labels))
    return [str(label) for label in svm.predict(asked)]


def linear_tagger(
    base: BaseModel,
    texts: Sequence[str],
    entities: Sequence[Sequence[Span]],
    asked: Sequence[str],
    *,
    max_length: int = 256,
    seed: int = 0,
) -> list[list[TaggedSpan]]:
    """Entities by a logistic regression on what the frozen base makes of each word's first token."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    labels = bio_labels(sorted({span.label for spans in entities for span in spans}))
    tokenizer = load_tokenizer(base)
    given = [[(span.start, span.end, span.label) for span in spans] for spans in entities]
    rows, tags, _ = encode_tags(tokenizer, texts, given, labels, max_length=max_length)
    asked_rows, words, _ = split_words(tokenizer, asked, max_length=max_length)
    learnt = [[place for place, tag in enumerate(row) if tag != NO_LOSS] for row in tags]
    truth = [row[place] for row, places in zip(tags, learnt, strict=True) for place in places]
    vectors = _token_vectors(base, rows, learnt)
    asked_vectors = _token_vectors(base, asked_rows, [[word.token for word in row] for row in words])

    probe = LogisticRegression(max_iter=300, random_state=seed)
    with threadpool_limits(limits=1, user_api="blas"):
        probe.fit(np.concatenate(vectors), truth)
        answers = []
        for row, places in zip(asked_vectors, words, strict=True):
            likelihoods = probe.predict_proba(row) if len(row) else np.zeros((0, len(labels)))
            said = [labels[probe.classes_[best]] for best in likelihoods.argmax(axis=1)]
            answers.append(spans_of(places, said, likelihoods.max(axis=1, initial=0.0).tolist()))
    return answers


def _token_vectors(
    base: BaseModel, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Last hidden states of the frozen base at some places of each row, float32 (places, width)."""
    model, tokenizer = load_encoder(base), load_tokenizer(base)
    found = [np.zeros((0, model.config.hidden_size), np.float32) for _ in rows]

    def place(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.cpu().numpy()
        for line, index in enumerate(indices):
            found[index] = hidden[line, list(places[index])]

    each(batches(model, tokenizer, rows, 64), place)
    return found
