"""Every kind does what its name says, at the rate that the table says, and tells the truth about it."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.perturb import (
    EXACT_DUPLICATE,
    FIXABLE,
    KINDS,
    NEAR_DUPLICATE,
    NEAR_JACCARD,
    POISON,
    RATES,
    RETRY_STORM,
    STORM_SIZES,
    jaccard,
    perturb,
    resubmit,
)

TEXT = "Could you please tell me why my laptop doesn't connect, and what I should do before the meeting?"
SAMPLES = 20_000


def test_the_table_names_every_kind_and_splits_it_into_fixable_and_poison() -> None:
    assert set(RATES) == set(KINDS)
    assert len(RATES) == 18
    assert set(RATES) == FIXABLE | POISON
    assert not FIXABLE & POISON


def test_each_kind_hits_at_its_rate() -> None:
    rng = random.Random(0)
    counted = Counter(kind for _ in range(SAMPLES) for kind in perturb(TEXT, rng=rng).kinds)
    # 15.1 is chi-square's 0.9999 quantile for one degree of freedom: a right table fails once in 500 seeds.
    statistics = {
        kind: (counted[kind] - SAMPLES * rate) ** 2 / (SAMPLES * rate * (1 - rate))
        for kind, rate in RATES.items()
    }
    assert max(statistics.values()) < 15.1, statistics


def test_kinds_occur_together_as_independent_draws_do() -> None:
    rng = random.Random(1)
    pair = {"typo": 0.5, "preamble": 0.4}
    both = sum(len(perturb(TEXT, rng=rng, rates=pair).kinds) == 2 for _ in range(SAMPLES))
    expected, spread = SAMPLES * 0.2, (SAMPLES * 0.2 * 0.8) ** 0.5
    assert abs(both - expected) < 4 * spread


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_alone_changes_an_ordinary_text_and_is_named(kind: str) -> None:
    changed = perturb(TEXT, rng=random.Random(3), rates={kind: 1.0})
    assert changed.text != TEXT
    assert changed.kinds == (kind,)


@given(text=st.text(max_size=80), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_any_text_survives_all_kinds_and_the_same_seed_gives_the_same(text: str, seed: int) -> None:
    everything = dict.fromkeys(RATES, 0.5)
    first = perturb(text, rng=random.Random(seed), rates=everything)
    assert first == perturb(text, rng=random.Random(seed), rates=dict(reversed(everything.items())))
    assert (first.text == text) >= (not first.kinds)
    for kind in KINDS:
        KINDS[kind](text, random.Random(seed))


def test_no_rates_change_nothing_and_an_unknown_kind_is_refused() -> None:
    assert perturb(TEXT, rng=random.Random(0), rates={}).text == TEXT
    with pytest.raises(ValueError, match="spelling"):
        perturb(TEXT, rng=random.Random(0), rates={"spelling": 0.1})


def test_fixable_noise_keeps_what_was_asked() -> None:
    rng = random.Random(2)
    for kind in sorted(FIXABLE - {"casing", "utf8"}):
        share = [jaccard(KINDS[kind](TEXT, rng), TEXT) for _ in range(50)]
        assert sum(share) / len(share) > 0.4, kind
    assert jaccard(KINDS["casing"](TEXT, rng), TEXT) == 1.0


def test_poison_that_replaces_a_text_leaves_nothing_of_it() -> None:
    rng = random.Random(4)
    for kind in ("empty", "gibberish"):
        assert all(jaccard(KINDS[kind](TEXT, rng), TEXT) < 0.1 for _ in range(50))
    assert all("laptop" not in KINDS["off_domain"](TEXT, rng) for _ in range(50))


def test_every_text_is_submitted_once_as_it_is_and_then_in_order() -> None:
    texts = [f"request number {n} about my laptop and me" for n in range(2_000)]
    sent = resubmit(texts, rng=random.Random(0))
    assert [one.text for one in sent if not one.kinds] == texts
    assert [one.index for one in sent] == sorted(one.index for one in sent)
    assert sent == resubmit(texts, rng=random.Random(0))


def test_repetitions_come_at_their_rates_and_are_what_they_are_called() -> None:
    sent = resubmit([TEXT] * SAMPLES, rng=random.Random(5))
    storms = Counter(one.index for one in sent if one.kinds == ("retry_storm",))
    counted = Counter(kind for one in sent for kind in one.kinds)
    for found, rate in (
        (counted["near_duplicate"], NEAR_DUPLICATE),
        (counted["exact_duplicate"], EXACT_DUPLICATE),
        (len(storms), RETRY_STORM),
    ):
        assert (found - SAMPLES * rate) ** 2 / (SAMPLES * rate * (1 - rate)) < 15.1
    assert (min(storms.values()), max(storms.values())) == STORM_SIZES
    for one in sent:
        if one.kinds == ("near_duplicate",):
            assert one.text != TEXT
            assert jaccard(one.text, TEXT) >= NEAR_JACCARD
        else:
            assert one.text == TEXT


@pytest.mark.parametrize("text", ["help", "two words", "", "  ", "?"])
def test_short_texts_can_be_sent_again_too(text: str) -> None:
    sent = resubmit([text] * 500, rng=random.Random(6))
    assert all(jaccard(one.text, text) >= NEAR_JACCARD for one in sent)
