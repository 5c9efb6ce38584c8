"""Near-duplicates and contained texts, held against what a plain look at all pairs finds."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from expectations.suites import likeness, noise, spread
from expectations.suites.likeness import RUN, Scored, nearest, runs_of, signatures, words

WORDS = [f"word{i}" for i in range(60)]


def signed(texts: list[str | None]) -> np.ndarray:
    return signatures(words(pa.array(texts, pa.string())))


def jaccard(one: str, other: str) -> float:
    first, second = set(one.split()), set(other.split())
    return len(first & second) / len(first | second)


def talk(rng: random.Random, count: int) -> list[str]:
    """Texts of which many are alike by half and some by more."""
    seeds = [" ".join(rng.sample(WORDS, rng.randint(4, 40))) for _ in range(count // 4)]
    found = []
    for index in range(count):
        said = seeds[index % len(seeds)].split()
        for _ in range(rng.randint(0, 3)):
            said[rng.randrange(len(said))] = rng.choice(WORDS)
        found.append(" ".join(said))
    return found


def test_signatures_agree_in_the_share_of_the_words_that_both_texts_have():
    rng = random.Random(1)
    texts = talk(rng, 200)
    marks = signed(texts)
    errors = [
        abs(jaccard(texts[one], texts[other]) - (marks[one] == marks[other]).mean())
        for one in range(0, 200, 7)
        for other in range(200)
    ]
    assert max(errors) < 0.2  # four standard errors
    assert float(np.mean(errors)) < 0.03


def test_case_marks_order_and_width_do_not_count_and_every_letter_of_chinese_is_a_word():
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "please")
    same = signed(["Reset my password, please!", "please reset my PASSWORD", f"{wide} my password (reset)"])
    assert (same == same[0]).all()
    chinese = signed(["我忘了密码怎么办呢", "我忘了密码怎么办吗", "完全不同的一句话嘛"])
    assert (chinese[0] == chinese[1]).mean() > 0.6 > 0.3 > (chinese[0] == chinese[2]).mean()
    assert not signed([None, "", " ,;! "]).any()


@pytest.mark.parametrize("within", [True, False])
def test_what_is_nearly_alike_is_found_among_many(within: bool):
    rng = random.Random(2)
    texts = talk(rng, 400)
    groups = np.array([index % 3 for index in range(400)])
    found = nearest(signed(texts), groups, within=within)
    for at, text in enumerate(texts):
        others = [
            jaccard(text, texts[other])
            for other in (range(at) if within else range(400))
            if (groups[other] == groups[at]) is np.bool_(within)
        ]
        if max(others, default=0) >= 0.95:
            assert found[at] > 0.8
        if max(others, default=0) < 0.5:
            assert found[at] < 0.75


def test_a_thousand_copies_in_two_groups_are_each_found():
    texts = ["the very same words again"] * 1000
    groups = np.array([index % 2 for index in range(1000)])
    assert (nearest(signed(texts), groups, within=False) == 1).all()
    assert (nearest(signed(texts), np.zeros(1000, np.int64), within=True) == 1).sum() == 999
    assert nearest(signed(texts[:1]), groups[:1], within=False).tolist() == [0]
    assert nearest(signed([]), groups[:0], within=True).tolist() == []


def test_runs_are_counted_of_each_text_alone():
    texts = [" ".join(WORDS[:RUN]), " ".join(WORDS[: RUN + 2]), "too short", " ".join(WORDS[:RUN])]
    hashes, rows = runs_of(words(pa.array(texts)))
    assert rows.tolist() == [0, 1, 1, 1, 3]
    assert hashes[0] == hashes[1] == hashes[4]
    assert len(set(hashes.tolist())) == 3


def test_shares_of_scored_texts_are_what_a_plain_look_finds():
    rng = random.Random(3)
    scored = [" ".join(rng.choices(WORDS[:20], k=rng.randint(3, 20))) for _ in range(30)]
    training = [
        " ".join([*rng.choices(WORDS, k=5), *rng.choice(scored).split()[rng.randint(0, 4) :], "end"])
        for _ in range(60)
    ]

    def runs(text: str) -> set[tuple[str, ...]]:
        said = text.split()
        return {tuple(said[at : at + RUN]) for at in range(len(said) - RUN + 1)}

    def share(text: str, of: str) -> float:
        return len(runs(of) & runs(text)) / len(runs(of)) if runs(of) else 0.0

    held = Scored.of(*runs_of(words(pa.array(scored))))
    travelled = Scored.from_metadata(held.as_metadata())
    in_training, of_scored = travelled.shares_in(words(pa.array(training)))
    assert in_training.tolist() == pytest.approx([max(share(text, of) for of in scored) for text in training])
    expected = [max(share(text, of) for text in training) for of in scored[: len(of_scored)]]
    assert of_scored.tolist() == pytest.approx(expected)
    assert in_training.max() == 1
    assert Scored.from_metadata(None).shares_in(words(pa.array(["any"])))[0].tolist() == [0]


def test_a_distance_of_lengths_is_that_of_scipy_or_none_of_few():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(4)
    for _ in range(20):
        some, others = rng.poisson(9, 150), rng.poisson(rng.integers(6, 14), 120)
        assert spread.distance(some, others) == pytest.approx(ks_2samp(some, others).statistic, abs=1e-6)
    assert spread.distance(some[:99], others) is None


def test_noise_names_its_kind_and_lets_ordinary_answers_be():
    texts = {
        "<task-notification> done": "markup",
        "so <tool_call>x</tool_call>": "markup",
        '<?xml version="1.0"?>': "markup",
        "\x1b[31mred": "terminal",
        "me@host:~/work$ ls": "terminal",
        "[Request interrupted by user]": "notification",
        "use <b>bold</b> and List<my_type>, if a_b < c and d > e": noise.NONE,
        "write to me@example.org: I answer": noise.NONE,
        "": noise.NONE,
    }
    assert noise.noise(pa.array([*texts, None])).to_pylist() == [*texts.values(), None]


def test_broken_encodings_are_told_from_letters_of_other_languages():
    broken = ["cafÃ©", "donâ€™t", "a\ufffdb", "Â£5", "ï»¿start", "Ã¼ber"]
    sound = ["café", "don\u2019t", "SÃO PAULO", "Âge d'or", "über", "naïve", "日本語", None]
    assert noise.is_decoded(pa.array(broken)).to_pylist() == [False] * len(broken)
    assert noise.is_decoded(pa.array(sound)).to_pylist() == [True] * len(sound)
    assert noise.sizes(pa.array(["a b  c\nd", "", "  ", None, "one"])).tolist() == [4, 0, 0, 0, 1]
    assert likeness.HASHES % 6 == 0
