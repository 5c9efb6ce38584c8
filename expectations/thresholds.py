"""What the suites hold a batch against: every number a rule uses, with where it comes from.

Citations such as D3 are entries of the catalogue of requirements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Thresholds(BaseModel):
    """The numbers of all suites. A number that only one table uses changes only that table's suite digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_rows: int = Field(default=1, ge=1)
    """Rows a batch must hold. Every row rule passes an empty batch, so 0 cannot be chosen."""

    min_prompt_stated: Share = 0.95
    """Share of the trace rows whose source can state a prompt version that do state it (C2 lists the version
    first among what is found missing). Below it an exporter has lost the versions, and no bad prompt could be
    recalled."""

    max_empty_responses: Share = 0.05
    """Share of traces that may have no answer, neither text nor a tool call. D9 counts 0.7 % empty *inputs*
    in production traffic; seven times that means that the exporter, not the model, lost the answers."""

    max_empty_requests: Share = 0.05
    """Share of traces that may have no message where their source logs requests: as for answers."""

    pass_share: tuple[Share, Share] = (0.02, 0.98)
    """Share of passes among judged traces. Outside of it a judge says the same of nearly everything, and
    diagnosis has nothing to tell apart (E1)."""

    min_agreeing_verdicts: Share = 0.95
    """Share of the verdicts that must say what score and threshold say. Below 1 because people overrule."""

    max_tokens: int = Field(default=10_000_000, ge=1)
    """Most tokens of a call: as many as the longest context that models are sold with."""

    max_unjudged: Share = 0.5
    """Share of traces that may be without a verdict in a batch in which some have one."""

    least_rows_of_share: int = Field(default=30, ge=1)
    """Rows below which a share of verdicts is not asked: of 30, its standard error is 9 % at most."""

    max_personal: Share = 0.05
    """Share of traces or documents that may hold personal data or secrets as found on their way in. Above it,
    ingesting anew with --redact is worth the time."""

    max_age_days: int = Field(default=365, ge=1)
    """Age of a trace when it is read above which it counts as old: what users ask moves on."""

    min_fresh: Share = 0.9
    """Share of the traces with a time that must be younger than that."""

    clock_slack_s: int = Field(default=86_400, ge=0)
    """How far after its reading a trace may have happened: a day, for clocks and time zones of others."""

    max_text_characters: int = Field(default=20_000, ge=1)
    """Longest text of an example: about 5,000 tokens, more than the models here are fed at once."""

    answer_words: tuple[int, int] = (10, 800)
    """Words of a generated training answer (D1: 10 to 800 tokens; words stand for tokens, of which they have
    about 1.3, because a gate knows no tokenizer)."""

    min_sized_answers: Share = 0.97
    """Share of the generated training answers whose length lies in that range. Below 1 because a turn of an
    agent may be one command."""

    max_noisy_answers: Share = 0.02
    """Share of the generated answers that may hold XML of tools, terminal codes, task notifications, which D1
    strips, or what else is odd in a text. D9 counts 2 % HTML in traffic: more, and nobody stripped."""

    max_same_answer: Share = 0.2
    """Share of the generated training answers that may be one and the same."""

    max_badly_decoded: Share = 0.007
    """Share of texts that may hold U+FFFD or UTF-8 read in another encoding: as much as D9 counts."""

    max_rows_per_generator: int = Field(default=600, ge=1)
    """Generated training rows of one generator in a batch (D1; D2: uncapped, the style of one took over)."""

    near_duplicate: Share = 0.8
    """Two texts are near-duplicates when their sets of words overlap by this much (D9: Jaccard >= 0.8), or
    when one holds this share of the other's runs of 8 words (GPT-3's decontamination takes 8 to 13)."""

    max_odd: Share = 0.08
    """Share of texts that may hold markup, entities, invisible marks, tracebacks, tags of other systems,
    orders to a model, personal data or mashed keys: D9 counts 7.6 % in traffic (HTML 2, orders 2, repeated
    1.5, UTF-8, metadata and gibberish 0.7 each), and more is an exporter's doing."""

    max_repeating: Share = 0.05
    """Share of texts that may repeat themselves as much as D1 forbids of answers (D9: 1.5 % in traffic)."""

    max_refusals: Share = 0.02
    """Share of generated training answers that may refuse or give the question back: a model that is fed
    more learns to refuse. Not 0: some questions have to be refused."""

    max_times_median: float = Field(default=10.0, gt=1)
    """How many times as long as the median of its batch a text may be (D9 calls two times very long, and
    counts 1.5 % of them; ten times is another kind of text)."""

    max_very_long: Share = 0.03
    """Share of texts that may be longer than that: twice what D9 counts as very long."""

    max_near_leakage: Share = 0.1
    """Share of rows that may nearly repeat a row of another split before a batch is refused; any one is
    warned of. Not 0: people word short requests alike, and of CLINC150's own evaluation rows 6 % are
    near-duplicates of its training rows (measured)."""

    max_near_duplicates: Share = 0.05
    """Share of training rows that may nearly repeat one before them: as many as D9 counts in traffic."""

    min_document_words: int = Field(default=3, ge=1)
    """Words below which a document is a heading without a text."""

    max_headings: Share = 0.03
    """Share of documents that may be that."""

    max_repeated: Share = 0.03
    """Share of traces or documents that may repeat one before them word for word: as many as D9 counts."""

    min_patterns: int = Field(default=3, ge=1)
    """Surface patterns (first three words) that a label with ten training rows or more must have (D4: 3 to 5
    patterns per label are written; what people wrote has more, so there is no upper end)."""

    max_length_distance: Share = 0.2
    """Kolmogorov and Smirnov's distance of the lengths of training inputs from those of the gate split (D4:
    matched to target inputs). Chance alone reaches 0.16 once in a hundred times for 200 rows against 200."""

    max_bigram_repetition: Share = 0.4
    """A generated answer repeats itself when this share of its word pairs occurred before (D1: < 0.4)."""

    min_unrepetitive_answers: Share = 0.9
    """Share of the generated training answers of at least 10 words (D1's lower bound) that do not repeat
    themselves. Below 1 because code and tables repeat with good reason."""

    min_labels: int = Field(default=2, ge=1)
    """Labels that the classification examples of a split must have, those of a batch and those admitted
    before taken together: one label teaches nothing but itself."""

    max_label_ratio: float = Field(default=3.0, ge=1)
    """Rows of a curriculum's most frequent label per row of its rarest (D4: at most 3 times another)."""

    classification_size: tuple[int, int] = (100, 200)
    """Rows of a curriculum for classification, of labels or of entities (D5)."""

    generation_size: tuple[int, int] = (500, 3000)
    """Rows of a curriculum for generation, or for preferences among what is generated (D5)."""

    max_weight: float = Field(default=3.0, gt=0)
    """How often a row of a curriculum may be taken per epoch (D4: nothing is used more than 2 to 3 times)."""

    min_paired_gold: Share = 0.5
    """Share of the gold rows whose label must have a hard row, too, where a curriculum has both (D4's
    2-for-1: one gold and one hard row for each hard case; rows name no case, so labels stand for cases)."""

    min_predicted: Share = 0.9
    """Share of a split's admitted rows under a condition that a model must have been asked. Below 1 because
    rows that reviewers rejected after they were admitted are left out."""

    gold_share: tuple[Share, Share] = (0.40, 0.60)
    """Share of gold rows in a curriculum that has all three slices (D3)."""

    hard_share: tuple[Share, Share] = (0.25, 0.35)
    """Share of hard rows in a curriculum that has all three slices (D3)."""

    replay_share: tuple[Share, Share] = (0.10, 0.20)
    """Share of replay rows in a curriculum that has all three slices (D3)."""

    slice_tolerance: Share = 0.02
    """How far a slice may lie outside D3's range: 100 rows (D5's smallest curriculum) cannot be cut finer
    than 1 %, and label balance and slice shares pull at the same rows."""

    @field_validator(
        "gold_share", "hard_share", "replay_share", "pass_share", "answer_words", "classification_size",
        "generation_size",
    )  # fmt: skip
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]} > {value[1]}; give the lower end of the range first")
        return value


DEFAULTS = Thresholds()


def chosen(said: Mapping[str, Any]) -> Thresholds:
    """The thresholds that a verdict names; what it does not name is as by default."""
    return Thresholds.model_validate({name: said[name] for name in Thresholds.model_fields if name in said})
