"""A benchmark is data with a version, and its numbers come again from its rows."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.benchmarks import (
    Benchmark,
    Row,
    Scored,
    as_facets,
    compare,
    from_facets,
    packaged,
    read,
    run,
    score,
    weak_categories,
)
from training.benchmarks.scorers import BENCHMARK_SCORERS, in_order, is_concise
from training.judge import OverlapJudge, Pair, Ruling
from training.recipe import TrainingError
from training.tiny.problems import MOST_DIGITS, side_of, stated

SMALL = """
[benchmark]
name = "small"
revision = 1

[floors]
overall = 0.7
each = 0.3

[[category]]
name = "sums"
scorer = "number"
instruction = "End with ####."
floor = 0.5

[[category.prompt]]
id = "one"
prompt = "1 + 1?"
answer = "#### 2"

[[category.prompt]]
id = "two"
messages = [
    {role = "system", content = "Be brief."},
    {role = "user", content = "2 + 2?"},
    {role = "assistant", content = "#### 4"},
    {role = "user", content = "And 3 + 3?"},
]
answer = "#### 6"

[[category]]
name = "letters"
scorer = "option_letter"

[[category.prompt]]
id = "vowel"
prompt = "Which is a vowel?"
options = ["B", "E"]
answer = "B"

[[category]]
name = "taste"
scorer = "judge"

[[category.prompt]]
id = "poem"
prompt = "Two lines on rain."
answer = "Rain on the roof, a hundred feet; they run, and none is in the street."
"""
RIGHT = {"1 + 1?": "#### 2", "And 3 + 3?": "#### 6", "Which is a vowel?": "B", "Two lines on rain.": "Rain."}


def small(text: str = SMALL) -> Benchmark:
    return Benchmark.model_validate(tomllib.loads(text))


def answering(**otherwise: str):
    """A model that is right, but where it is told what to say: by the first word of a question."""

    def answer(conversations) -> list[str]:
        asked = [turns[-1]["content"].partition("\n\n")[0] for turns in conversations]
        return [otherwise.get(question.split()[0], RIGHT[question]) for question in asked]

    return answer


@pytest.fixture
def file(tmp_path: Path):
    """Writes a benchmark with a change, and reads it."""

    def write(old: str = "", new: str = "") -> Benchmark:
        assert old in SMALL
        path = tmp_path / "mine.toml"
        path.write_text(SMALL.replace(old, new, 1), encoding="utf-8")
        return read(path)

    return write


def test_a_version_is_of_what_is_asked_not_of_how_it_is_written(file):
    version = file().digest
    assert file("[floors]", "# a comment\n[floors]").digest == version
    assert file('name = "small"\nrevision = 1', 'revision = 1\nname = "small"').digest == version
    changes = [("1 + 1?", "1 + 2?"), ("#### 2", "#### 3"), ("0.7", "0.8"), ("floor = 0.5", "floor = 0.6")]
    changes += [('"B", "E"', '"C", "E"'), ("Be brief.", "Be long."), ("revision = 1", "revision = 2")]
    changes += [("End with ####.", "End with #### and the number.")]
    assert len({version, *(file(*change).digest for change in changes)}) == len(changes) + 1


def test_the_last_turn_is_asked_with_options_and_instruction_below():
    told = []
    run(lambda asked: told.extend(asked) or [""] * 4, small())
    assert told[0] == [{"role": "user", "content": "1 + 1?\n\nEnd with ####."}]
    assert [turn["role"] for turn in told[1]] == ["system", "user", "assistant", "user"]
    assert told[1][-1]["content"] == "And 3 + 3?\n\nEnd with ####."
    assert told[2][0]["content"] == "Which is a vowel?\n\nA) B\nB) E"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("revision = 1", "", r"mine\.toml': key 'benchmark\.revision' is missing"),
        ("[floors]", "[floor]", r"unknown key 'floor'; known: benchmark, category, floors"),
        ("floor = 0.5", "flor = 0.5", r"unknown key 'category\.0\.flor'; known: floor, .*scorer"),
        ('answer = "B"', 'anwser = "B"', r"unknown key 'category\.1\.prompt\.0\.anwser'; known: answer, id"),
        ("overall = 0.7", "overall = 70", r"'floors\.overall' is 70"),
        ('"option_letter"', '"letter"', r"scorer 'letter' is not one of: .*option_letter.*, judge"),
        ('id = "two"', 'id = "one"', r"category 'sums' has prompt 'one' twice"),
        ('name = "letters"', 'name = "sums"', r"the benchmark has category 'sums' twice"),
        ('answer = "#### 6"', "", r"prompt 'two' has no answer to be scored by"),
        ('answer = "#### 6"', 'answer = "six"', r"prompt 'two': the answer 'six' names no number"),
        ('answer = "B"', 'answer = "C"', r"the answer to 2 options is not of the letters AB"),
        ('prompt = "1 + 1?"', "", r"either 'prompt' or 'messages'"),
        ('answer = "#### 2"', 'answer = "#### 2"\nmax_words = 3', r"'number' has no use for max_words"),
        ("[floors]", "[floors", r"is not TOML"),
        ("[[category]]", "[category]", r"is not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_what_is_allowed(file, old: str, new: str, said: str):
    with pytest.raises(TrainingError, match=said):
        file(old, new)


def test_a_category_without_prompts_is_for_a_judge_alone():
    text = SMALL[: SMALL.index("[[category]]")]
    with pytest.raises(ValueError, match="only one of scorer 'judge' may do without"):
        small(text + '[[category]]\nname = "none"\nscorer = "number"\n')
    assert small(text + '[[category]]\nname = "none"\nscorer = "judge"\n').size == 0


def test_an_unknown_name_lists_the_packaged_ones():
    assert packaged() == ["arithmetic", "nine"]
    with pytest.raises(TrainingError, match=r"no benchmark 'ten'; .* one of: arithmetic, nine"):
        read("ten")


def test_numbers_are_means_per_category_and_over_all_prompts():
    scored, cost = run(answering(And="#### 7"), small(), seed=3)
    assert [(c.name, c.value, c.n, c.floor) for c in scored.categories] == [
        ("sums", 0.5, 2, 0.5),
        ("letters", 1.0, 1, 0.3),
    ]
    assert (scored.overall, scored.n) == (2 / 3, 3)
    assert scored.low <= scored.overall <= scored.high
    assert scored.unmeasured == ("taste",)
    assert [(row.id, row.score, row.scorer) for row in scored.rows] == [
        ("one", 1.0, "number@1"),
        ("two", 0.0, "number@1"),
        ("vowel", 1.0, "option_letter@1"),
        ("poem", None, ""),
    ]
    assert cost.calls == 0


def test_a_floor_that_is_met_exactly_is_met_and_one_below_is_named_with_its_numbers():
    assert run(answering(), small())[0].failed == ()
    overall, letters = run(answering(Which="A"), small())[0].failed
    assert re.fullmatch(
        r"All in all it scores 66\.7 % of 3 prompts \[.*\], below the floor of 70 %\.", overall
    )
    assert letters == "In category 'letters' it scores 0.0 % of 1 prompts, below the floor of 30 %."
    [overall] = run(answering(And="7"), small())[0].failed  # 'sums' stands at its own floor, 0.5
    assert overall.startswith("All in all")


@pytest.mark.parametrize("wanted", [94, 95])
def test_nine_categories_of_fifteen_stand_or_fall_at_seventy_percent(wanted: int):
    prompts = "".join(f'[[category.prompt]]\nid = "p{n}"\nprompt = "{n}"\nanswer = "y"\n' for n in range(15))
    head = '[benchmark]\nname = "b"\nrevision = 1\n[floors]\noverall = 0.70\neach = 0.30\n'
    text = head + "".join(f'[[category]]\nname = "c{n}"\nscorer = "exact"\n{prompts}' for n in range(9))
    scored, _ = run(lambda asked: ["y"] * wanted + ["n"] * (135 - wanted), small(text))
    assert scored.n == 135
    assert bool([said for said in scored.failed if said.startswith("All")]) == (wanted < 94.5)


def test_a_model_that_gives_too_few_answers_or_no_text_is_refused():
    with pytest.raises(TrainingError, match="gave 3 answers to 4 prompts"):
        run(lambda asked: ["x"] * 3, small())
    with pytest.raises(TrainingError, match="prompt 'sums/one' with a NoneType, expected a text"):
        run(lambda asked: [None] * 4, small())


def test_numbers_come_again_from_the_record_and_a_changed_record_is_named():
    benchmark = small()
    scored, _ = run(answering(And="#### 7"), benchmark, judge=OverlapJudge(), opponents=POEM, seed=5)
    facets = json.loads(json.dumps(as_facets(scored)))
    assert from_facets(benchmark, facets) == scored
    for change, said in [
        (lambda f: f["rows"][0].update(score=0.0), "overall, rows|overall|row 'sums/one'"),
        (lambda f: f["rows"][1].update(prediction="#### 6"), "row 'sums/two' has score 0.0"),
        (lambda f: f["rows"][0].update(answer="#### 3", prediction="#### 3"), "row 'sums/one'"),
        (lambda f: f["rows"][0].update(scorer="always@1"), "row 'sums/one'"),
        (lambda f: f["rows"][3].update(said="A,B", score=0.0), "row 'taste/poem'"),
        (lambda f: f.update(overall=[0.9, 0.8, 1.0, 3]), "record's overall are not what its rows give"),
        (lambda f: f["rows"].pop(), "prompt 'taste/poem' has 0 rows"),
        (lambda f: f["rows"].append(f["rows"][0]), "prompt 'sums/one' has 2 rows"),
        (lambda f: f["rows"][0].pop("answer"), "is not one that a benchmark writes: .*answer"),
        (lambda f: f["rows"][0].update(id="three"), "prompt 'sums/one' has 0 rows"),
    ]:
        changed = json.loads(json.dumps(facets))
        change(changed)
        with pytest.raises(TrainingError, match=said):
            from_facets(benchmark, changed)
    with pytest.raises(TrainingError, match=r"the record is of small@1 \(.*\), the benchmark is small@2"):
        from_facets(small(SMALL.replace("revision = 1", "revision = 2")), facets)


POEM = {("taste", "poem"): "Rain on the roof."}


def test_a_judged_category_is_scored_against_the_opponents_answers():
    benchmark, judge = small(), OverlapJudge()
    same, _ = run(answering(), benchmark, judge=judge, opponents={("taste", "poem"): "Rain."})
    assert (same.rows[3].score, same.rows[3].scorer, same.unmeasured) == (0.5, str(judge.version), ())
    worse, _ = run(answering(), benchmark, judge=judge, opponents=POEM)
    assert (worse.rows[3].score, worse.rows[3].opponent, worse.rows[3].said) == (
        0.0,
        "Rain on the roof.",
        "B,A",
    )
    reference = benchmark.category[2].prompt[0].answers[0]
    alone, _ = run(answering(), benchmark, judge=judge)
    assert (alone.rows[3].opponent, alone.rows[3].score) == (reference, 0.0)
    [taste] = [category for category in worse.categories if category.name == "taste"]
    assert (taste.value, taste.n, taste.not_counted) == (0.0, 1, 0)


class Mute:
    """A judge without a verdict."""

    version = OverlapJudge(band=0.9).version

    def rule(self, pair: Pair) -> Ruling:
        assert pair.question == "Two lines on rain."
        return Ruling(("", ""), "it said nothing of use")


def test_what_has_no_verdict_leaves_the_denominator():
    scored, _ = run(answering(), small(), judge=Mute(), opponents=POEM)
    assert (scored.n, scored.overall, scored.unmeasured) == (3, 1.0, ("taste",))
    assert scored.rows[3].why == "it said nothing of use"


def test_a_comparison_lists_the_categories_that_got_worse():
    benchmark = small()
    champion, _ = run(answering(), benchmark)
    candidate, _ = run(answering(And="7"), benchmark)
    found = compare(candidate, champion)
    assert found.overall.diff == pytest.approx(-1 / 3)
    [sums] = found.regressed
    assert (sums.name, sums.candidate, sums.champion, sums.lost, sums.p) == ("sums", 0.5, 1.0, ("two",), 1.0)
    assert "In category 'sums' it scores 50.0 %, the champion 100.0 %; lost: two" in str(sums)
    assert compare(champion, candidate).regressed == ()
    assert compare(champion, champion).overall.diff == 0.0


def test_judged_against_the_champion_itself_a_category_is_worse_where_it_loses():
    benchmark = small()
    champion, _ = run(answering(Two="Rain on the roof."), benchmark)
    candidate, _ = run(answering(), benchmark, judge=OverlapJudge(), opponents=POEM)
    [taste] = compare(candidate, champion).regressed
    assert (taste.name, taste.candidate, taste.champion, taste.lost) == ("taste", 0.0, 0.5, ("poem",))


def test_two_versions_of_a_benchmark_a_scorer_or_a_judge_are_not_compared():
    benchmark = small()
    mine, _ = run(answering(), benchmark, judge=OverlapJudge(), opponents=POEM)
    other, _ = run(answering(), small(SMALL.replace("0.7", "0.8")))
    with pytest.raises(TrainingError, match="two versions of a benchmark are not compared") as told:
        compare(mine, other)
    assert mine.benchmark in str(told.value)
    assert other.benchmark in str(told.value)
    older = score(benchmark, [replace(mine.rows[0], scorer="number@0"), *mine.rows[1:]])
    with pytest.raises(TrainingError, match=r"'sums/one' was scored by number@1 and by number@0"):
        compare(mine, older)
    loose = OverlapJudge(band=0.5)
    elsewhere, _ = run(answering(), benchmark, judge=loose, opponents=POEM)
    with pytest.raises(TrainingError, match="'taste/poem' was scored by overlap@") as told:
        compare(mine, elsewhere)
    assert str(loose.version) in str(told.value)


def test_weak_categories_share_the_next_rows_by_their_deficits_and_say_nothing_of_prompts():
    scored, _ = run(answering(And="7", Which="A"), small())
    weak = weak_categories(scored, rows=90)
    assert [(each.name, each.quota) for each in weak] == [("letters", 70), ("sums", 20)]
    assert [each.deficit for each in weak] == pytest.approx([0.7, 0.2])
    said = repr(weak)
    for row in scored.rows:
        assert row.id not in said
        assert len(row.prediction) < 3 or row.prediction not in said
    assert weak_categories(run(answering(), small())[0], rows=90) == ()
    assert [each.name for each in weak_categories(scored, rows=9, wanted=0.4)] == ["letters"]


@given(values=st.lists(st.integers(0, 15), min_size=1, max_size=9), rows=st.integers(0, 5000))
def test_quotas_add_up_to_the_rows(values: list[int], rows: int):
    text = '[benchmark]\nname = "b"\nrevision = 1\n[floors]\noverall = 0.7\n' + "".join(
        f'[[category]]\nname = "c{n}"\nscorer = "exact"\n'
        + "".join(f'[[category.prompt]]\nid = "p{k}"\nprompt = "?"\nanswer = "y"\n' for k in range(15))
        for n, _ in enumerate(values)
    )
    said = [word for right in values for word in ["y"] * right + ["n"] * (15 - right)]
    weak = weak_categories(run(lambda asked: said, small(text))[0], rows=rows)
    assert sum(each.quota for each in weak) == (rows if min(values) / 15 < 0.7 else 0)
    assert all(each.quota >= 0 for each in weak)


@pytest.mark.parametrize(
    ("prediction", "worth"),
    [
        ("BCA", 1.0),
        ("B, C, A", 1.0),
        ("B -> C -> A.", 1.0),
        ("The order is B → C → A", 1.0),
        ("A, B, C? No: B,C,A", 1.0),
        ("B,C,A, or rather A,B,C", 0.0),
        ("B, C", 0.0),
        ("B, C, A, D", 0.0),
        ("b c a", 0.0),
        ("ABACA", 0.0),
        ("", 0.0),
    ],
)
def test_an_order_is_the_last_run_of_letters_that_is_as_long(prediction: str, worth: float):
    assert in_order("BCA", prediction) == worth


@pytest.mark.parametrize(
    ("prediction", "worth"),
    [
        ("Oslo", 1.0),
        ("oslo.", 1.0),
        ("It's OSLO!", 1.0),
        ("The capital is Oslo", 0.0),
        ("Oslofjord", 0.0),
        ("Bergen", 0.0),
        ("", 0.0),
    ],
)
def test_concise_is_right_in_few_words(prediction: str, worth: float):
    assert is_concise('{"answers": ["Oslo", "Christiania"], "max_words": 2}', prediction) == worth


# The packaged benchmarks.

NINE = read("nine")
CATEGORIES = {category.name: category for category in NINE.category}
BY_RULE = {name: category for name, category in CATEGORIES.items() if category.scorer != "judge"}


def answers_of(name: str) -> dict[str, str]:
    return {prompt.id: prompt.answers[0] for prompt in CATEGORIES[name].prompt}


def test_nine_has_the_nine_categories_and_fifteen_prompts_where_no_judge_is_needed():
    assert list(CATEGORIES) == [
        "intent_classification",
        "orchestration",
        "tool_use",
        "code_review",
        "reasoning",
        "conciseness",
        "architecture",
        "affect_reasoning",
        "consciousness_articulation",
    ]
    assert {name: len(category.prompt) for name, category in BY_RULE.items()} == dict.fromkeys(BY_RULE, 15)
    assert len(BY_RULE) == 6
    assert (NINE.floors.overall, NINE.floors.each) == (0.7, 0.3)
    for category in CATEGORIES.values():
        questions = [json.dumps(category.conversation(prompt)) for prompt in category.prompt]
        assert len(set(questions)) == len(questions) >= 5


@pytest.mark.parametrize("name", packaged())
def test_its_head_line_is_the_command(name: str):
    head = files("training.benchmarks").joinpath(f"{name}.toml").read_text("utf-8").splitlines()[0]
    assert head == f"# stemma benchmark champion {name}"


@pytest.mark.parametrize("name", packaged())
def test_the_expected_answers_score_one_and_no_constant_answer_reaches_a_floor(name: str):
    benchmark = read(name)
    prompts = [prompt for category in benchmark.category for prompt in category.prompt]
    said = iter([prompt.answers[0] for prompt in prompts])
    best, _ = run(lambda asked: [next(said) for _ in asked], benchmark)
    assert (best.overall, best.failed) == (1.0, ())
    assert sum(category.n for category in best.categories) >= 45
    for constant in ["", "A", "#### 12", "I do not know.", *{prompt.answers[0] for prompt in prompts}]:
        scored, _ = run(lambda asked, said=constant: [said] * len(asked), benchmark)
        assert scored.overall < 0.1, constant
        for category in scored.categories:
            assert category.value < 0.3, (constant, category)


def test_intents_are_among_those_listed():
    listed = CATEGORIES["intent_classification"].instruction.partition(": ")[2].rstrip(".").split(", ")
    counts = Counter(answers_of("intent_classification").values())
    assert set(counts) == set(listed)
    assert len(listed) == 12


def test_orders_use_each_step_once():
    for prompt in CATEGORIES["orchestration"].prompt:
        letters = "ABCDEFGH"[: len(prompt.options)]
        assert sorted(prompt.answers[0]) == list(letters)
        assert prompt.answers[0] != letters, prompt.id  # not the order in which they stand


def test_tool_calls_keep_to_the_signatures_and_their_numbers_are_right():
    category = CATEGORIES["tool_use"]
    tools = {
        name: re.findall(r"(\w+): ", arguments)
        for name, arguments in re.findall(r"^(\w+)\((.*?)\)", category.instruction, re.M)
    }
    assert len(tools) == 7
    calls = {id: json.loads(answer) for id, answer in answers_of("tool_use").items()}
    for call in calls.values():
        assert list(call["arguments"]) == tools[call["name"]]
    assert {call["name"] for call in calls.values()} == set(tools)
    seconds = {id: timedelta(seconds=call["arguments"].get("seconds", 0)) for id, call in calls.items()}
    assert seconds["eggs"] == timedelta(minutes=4.5)
    assert seconds["hour-and-a-quarter"] == timedelta(hours=1, minutes=15)
    assert seconds["not-the-weather"] == timedelta(seconds=90)
    dentist, packing = calls["dentist"]["arguments"], calls["packing"]["arguments"]
    assert date.fromisoformat(dentist["date"]) == date(2027, 3, 3)
    assert datetime.strptime(dentist["start"], "%H:%M").strftime("%I:%M %p") == "02:30 PM"  # noqa: DTZ007
    assert timedelta(minutes=packing["minutes"]) == timedelta(hours=11) - timedelta(hours=9)


def test_sums_of_the_reasoning_prompts_are_right():
    snail = next(day for day in range(1, 99) if 3 * (day - 1) + 5 >= 17)
    arrival = timedelta(hours=13) - timedelta(hours=9, minutes=40) - timedelta(hours=2, minutes=35)
    ages = next(2 * ben for ben in range(99) if 2 * ben + 6 + ben + 6 == 48)
    wednesday = date(2026, 1, 7)
    mondays = [n for n in range(1, 15) if (wednesday + timedelta(n)).weekday() == 0]
    assert wednesday.weekday() == 2
    right = {
        "arrival": arrival / timedelta(minutes=1),
        "pencils": Fraction(18, 3) * 2,
        "leaking-tank": Fraction(240, 15 - 3),
        "ages": ages,
        "up-and-down": Fraction(80) * Fraction(125, 100) * Fraction(80, 100),
        "languages": 30 - (18 + 15 - 7),
        "snail": snail,
        "clock": Fraction(10, 6 - 1) * (12 - 1),
        "handshakes": len(list(combinations(range(9), 2))),
        "fifth-number": 5 * 17 - 4 * 15,
        "boxes": 12 * 3 + 8 * 5 + (24 - 12 - 8) * 2,
        "cyclists": Fraction(60, 12 + 18) * 60,
        "second-monday": mondays[1],
        "unknown": next(n for n in range(99) if 3 * n - 7 == n + 19),
        "flour": -(-Fraction(300, 4) * 10 // 500),
    }
    assert {id: stated(answer) for id, answer in answers_of("reasoning").items()} == right


def test_what_the_code_reviews_say_of_running_code_is_so():
    told = {}
    for prompt in CATEGORIES["code_review"].prompt:
        code = (prompt.prompt or "").split("\n\n")[1]
        compile(code, prompt.id, "exec")
        told[prompt.id] = prompt.options["ABCD".index(prompt.answers[0])]

    def space(id: str) -> dict:
        code = next(p.prompt or "" for p in CATEGORIES["code_review"].prompt if p.id == id).split("\n\n")[1]
        names: dict = {"datetime": datetime, "timezone": __import__("datetime").timezone}
        exec(code, names)  # our own prompt, not an answer
        return names

    add = space("default-list")["add"]
    add(1)
    assert told["default-list"] == repr(add(2))
    with pytest.raises(IndexError):
        space("last-item")["last"]([4, 5])
    assert told["last-item"] == "It raises an IndexError"
    assert told["sum-of-tenths"] == repr(space("sum-of-tenths")["is_paid"]([0.1, 0.2], 0.3))
    assert told["remove-while"] == repr(space("remove-while")["drop_negative"]([-1, -2, 3]))
    assert told["late-binding"] == repr([f() for f in space("late-binding")["functions"]])
    assert told["floor-mean"] == repr(space("floor-mean")["mean"]([1, 2]))
    with pytest.raises(TypeError):
        space("naive-time")["is_over"](datetime(2026, 1, 1))  # noqa: DTZ001
    assert told["naive-time"] == "It raises a TypeError"
    rows = [{"n": 1}]
    space("shallow-copy")["doubled"](rows)
    assert told["shallow-copy"] == repr(rows)


def test_a_limit_of_words_is_told_in_the_prompt():
    for prompt in CATEGORIES["conciseness"].prompt:
        assert f"in at most {prompt.max_words} words" in (prompt.prompt or "").replace("Say in", "in")
        for answer in prompt.answers:
            assert len(answer.split()) <= (prompt.max_words or 0)
    assert answers_of("conciseness")["minutes-of-a-day"] == str(24 * 60)
    assert answers_of("conciseness")["how-many-left"] == "twenty-five"
    assert 40 - 12 - 3 == 25


def test_the_sums_of_the_tiny_decoder_are_right_held_out_and_what_their_category_says():
    kinds = {}
    for category in read("arithmetic").category:
        kinds[category.name] = set()
        for prompt in category.prompt:
            first, second = map(int, re.findall(r"\d+", prompt.prompt or ""))
            assert stated(prompt.answers[0]) == first + second
            assert side_of(first, second) == "evaluation"
            assert {len(str(first)), len(str(second))} == {3}
            kinds[category.name].add(carries(first, second))
    assert kinds == {"no_carry": {0}, "carries": {2, 3}, "in_words": {1}}


def carries(first: int, second: int) -> int:
    places = [10**place for place in range(1, MOST_DIGITS + 1)]
    return sum(first % place + second % place >= place for place in places)


def test_every_scorer_of_a_benchmark_gives_a_wrong_answer_nothing():
    assert {"order", "concise", "number", "option_letter", "alias", "tool_call"} <= BENCHMARK_SCORERS.keys()
    for category in BY_RULE.values():
        for prompt in category.prompt:
            scorer = BENCHMARK_SCORERS[category.scorer]
            assert scorer.score(prompt.expected, "") == 0.0
            assert scorer.score(prompt.expected, prompt.answers[0]) == 1.0


def test_rows_may_be_made_by_hand():
    rows = [
        Row("sums", "one", "#### 2", "#### 2", "number@1", 1.0),
        Row("sums", "two", "#### 6", "", "number@1", 0.0),
        Row("letters", "vowel", "B", "B", "option_letter@1", 1.0),
        Row("taste", "poem", "", "", "", None),
    ]
    scored = score(small(), rows[::-1])
    assert isinstance(scored, Scored)
    assert [row.id for row in scored.rows] == ["one", "two", "vowel", "poem"]
    with pytest.raises(TrainingError, match="no prompt that can be scored without a judge"):
        score(small(), [replace(row, score=None) for row in rows])
