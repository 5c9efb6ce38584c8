"""The scenario's files and its trace log: what they hold, what they hide, and the planted mistakes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.helpdesk.files import (
    REVIEWERS,
    ROLLOUT,
    damage,
    joined,
    listed_intents,
    noisy,
    planted_batch,
    prompt_text,
    render_log,
    sft_line,
    traffic,
    write_files,
)
from examples.helpdesk.generator import Pools, ScenarioError, helpdesk
from expectations.perturb import POISON, RATES

ROOT = Path(__file__).parents[2]
KIND_NAMES = {*RATES, "near_duplicate", "exact_duplicate", "retry_storm", "duplicate", "perturb", "poison"}


@pytest.fixture(scope="module")
def pools() -> Pools:
    return helpdesk(seed=0, scale="full")


@pytest.fixture(scope="module")
def log(pools: Pools) -> list[dict]:
    """The log of a deployed model that is right on two requests of three."""
    return [json.loads(line) for line in render(pools)]


def render(pools: Pools) -> list[bytes]:
    requests, truth = traffic(pools, seed=0)
    wrong = [pools.intents[number % len(pools.intents)] for number in range(len(truth))]
    predictions = [
        (true.intent if true.intent and number % 3 else wrong[number], 0.75)
        for number, true in enumerate(truth)
    ]
    return render_log(requests, predictions, truth, pools, model="router-minilm@1", seed=0)


def test_the_folder_holds_the_seven_files_with_one_object_per_line(pools: Pools, tmp_path: Path) -> None:
    files = write_files(pools, into=tmp_path / "scenario", seed=0)
    counts = {name: len(path.read_bytes().splitlines()) for name, path in files.items()}
    assert sorted(counts) == sorted(path.name for path in (tmp_path / "scenario").iterdir())
    assert counts.pop("requests.jsonl") == counts.pop("truth.jsonl") > 48 * 24
    assert counts == {
        "clean.jsonl": 8 * 24,
        "gate-clean.jsonl": 20 * 24,
        "gate-noisy.jsonl": 20 * 24,
        "report-clean.jsonl": 25 * 24,
        "report-noisy.jsonl": 25 * 24,
    }
    for path in files.values():
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            assert line == json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False)


def test_a_training_line_names_its_whole_provenance(pools: Pools) -> None:
    line = json.loads(sft_line(pools.clean[0], pools))
    assert [message["role"] for message in line["messages"]] == ["user", "assistant"]
    assert line["messages"][1]["content"] in pools.intents
    revision = line["metadata"].pop("generator_revision")
    assert len(revision) == 16
    assert int(revision, 16) >= 0
    assert line["metadata"] == {
        "prompt_name": "router",
        "prompt_version": "1",
        "generator": "helpdesk-templates",
        "scorer": "author",
        "scorer_revision": "1",
        "score": 1.0,
        "threshold": 0.5,
    }


def test_the_noisy_evaluation_set_is_the_clean_one_item_for_item_and_all_of_it_is_noisy(pools: Pools) -> None:
    changed = noisy(pools.gate, seed=0)
    pairs = list(zip(changed, pools.gate, strict=True))
    assert len(pairs) == 480
    assert all((new.intent, new.pattern) == (old.intent, old.pattern) for new, old in pairs)
    assert all(new.text != old.text and new.text.strip() for new, old in pairs)


def test_files_do_not_depend_on_the_hash_seed_of_the_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from examples.helpdesk.files import write_files\n"
        "from examples.helpdesk.generator import helpdesk\n"
        "write_files(helpdesk(seed=0, scale='tiny'), into=Path(sys.argv[1]), seed=0)"
    )
    for hash_seed in ("0", "4242"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / hash_seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            check=True,
        )
    once, again = (
        {path.name: path.read_bytes() for path in (tmp_path / hash_seed).iterdir()}
        for hash_seed in ("0", "4242")
    )
    assert len(once) == 7
    assert once == again


def test_requests_come_in_time_with_ids_of_their_own_and_poison_has_no_answer(pools: Pools) -> None:
    requests, truth = traffic(pools, seed=0)
    assert [request.request_id for request in requests] == [true.request_id for true in truth]
    assert len({request.request_id for request in requests}) == len(requests)
    created = [request.created for request in requests]
    assert all(earlier < later for earlier, later in itertools.pairwise(created))
    assert sum(true.intent is None for true in truth) > 30
    assert all((true.intent is None) == bool(POISON & set(true.kinds)) for true in truth)
    assert {true.pattern for true in truth} == {utterance.pattern for utterance in pools.traffic}


def test_a_log_line_is_a_chat_completion_with_prompt_and_verdict(log: list[dict], pools: Pools) -> None:
    requests, truth = traffic(pools, seed=0)
    assert len({line["id"] for line in log}) == len(log) == len(requests)
    for line, request, true in zip(log, requests, truth, strict=True):
        assert set(line) - {"review"} == {"id", "request", "response", "verdict"}
        system, user = line["request"]["messages"]
        assert user == {"role": "user", "content": request.text}
        version = line["request"]["metadata"]["prompt_version"]
        assert system["content"] == prompt_text(pools, version=version)
        assert line["response"]["created"] == request.created
        assert line["response"]["model"] == "router-minilm@1"
        usage = line["response"]["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        passed = line["response"]["choices"][0]["message"]["content"] == true.intent
        assert line["verdict"]["value"] == ("pass" if passed else "fail")
        assert ("review" in line) == (not passed)


def test_no_perturbation_is_named_anywhere_in_the_log(log: list[dict], pools: Pools) -> None:
    spoken = {request.text for request in traffic(pools, seed=0)[0]}
    prompts = {prompt_text(pools, version=version) for _, version in ROLLOUT}

    def words(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(words, value.values()))
        if isinstance(value, list):
            return set().union(*map(words, value))
        return {value} if isinstance(value, str) and value not in spoken | prompts else set()

    said = words(log)
    assert {"metadata", "router", "exact-match"} <= said
    assert [(word, name) for word in sorted(said) for name in sorted(KIND_NAMES) if name in word] == []


def test_prompt_versions_follow_each_other_in_the_planned_shares(log: list[dict]) -> None:
    versions = [line["request"]["metadata"]["prompt_version"] for line in log]
    assert versions == sorted(versions)
    shares = [versions.count(version) / len(versions) for version in "123"]
    assert shares == pytest.approx([0.30, 0.40, 0.30], abs=0.01)


def test_router_2_alone_lists_the_last_two_entries_first_and_no_entry_at_its_place(pools: Pools) -> None:
    assert listed_intents(pools, version="1") == listed_intents(pools, version="3") == pools.intents
    listed = listed_intents(pools, version="2")
    assert listed[:2] == pools.intents[-2:]
    assert listed[2:] == pools.intents[:-2]
    assert all(shown != intent for shown, intent in zip(listed, pools.intents, strict=True))
    for number in (1, 3, 24):
        assert f"\n{number}. {listed[number - 1]}: " in prompt_text(pools, version="2")


@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_no_confusable_pair_trades_places_in_router_2_and_few_entries_get_their_twins_number(scale) -> None:
    pools = helpdesk(seed=0, scale=scale)
    named = dict(zip(listed_intents(pools, version="2"), pools.intents, strict=True))
    twins = {*pools.confusable, *((second, first) for first, second in pools.confusable)}
    assert len(twins) >= 4
    assert [pair for pair in twins if named[pair[0]] == pair[1] and named[pair[1]] == pair[0]] == []
    assert sum(pair in twins for pair in named.items()) <= 1


def test_every_correction_under_router_2_is_wrong_and_every_other_one_is_right(
    log: list[dict], pools: Pools
) -> None:
    listed = listed_intents(pools, version="2")
    checked = {"wrong": 0, "right": 0}
    for line, true in zip(log, traffic(pools, seed=0)[1], strict=True):
        if "review" not in line or true.intent is None:
            continue
        correction = line["review"]["correction"]
        if line["request"]["metadata"]["prompt_version"] == "2":
            assert correction != true.intent
            assert correction == pools.intents[listed.index(true.intent)]
            checked["wrong"] += 1
        else:
            assert correction == true.intent
            checked["right"] += 1
    assert checked["wrong"] > 100
    assert checked["right"] > 200


def test_what_the_model_got_right_under_router_2_stays_right(log: list[dict], pools: Pools) -> None:
    passed = [
        (line["response"]["choices"][0]["message"]["content"], true.intent)
        for line, true in zip(log, traffic(pools, seed=0)[1], strict=True)
        if "review" not in line and line["request"]["metadata"]["prompt_version"] == "2"
    ]
    assert len(passed) > 200
    assert all(answer == intent for answer, intent in passed)


def test_every_reviewer_works_under_every_version_and_answers_poison_with_some_intent(
    log: list[dict], pools: Pools
) -> None:
    reviewed = [line for line in log if "review" in line]
    for version in "123":
        names = {
            line["review"]["reviewer"]
            for line in reviewed
            if line["request"]["metadata"]["prompt_version"] == version
        }
        assert names == set(REVIEWERS)
    assert {line["review"]["correction"] for line in reviewed} <= set(pools.intents)


def test_predictions_for_other_requests_are_refused(pools: Pools) -> None:
    requests, truth = traffic(pools, seed=0)
    with pytest.raises(ScenarioError, match=r"in the order of requests\.jsonl"):
        render_log(requests, [("report_spam", 0.5)], truth, pools, model="m", seed=0)


def test_damage_adds_lines_that_cannot_be_traces_and_loses_none(pools: Pools) -> None:
    lines = render(pools)
    damaged = damage(lines, seed=0)
    assert damaged == damage(lines, seed=0)
    added = [line for line in damaged if line not in set(lines)]
    assert [line for line in damaged if line in set(lines)] == lines
    assert len(added) == 4
    assert sum(not is_json(line) for line in added) == 2
    assert sorted(json.loads(line) for line in added if line == b"{}") == [{}]
    assert joined(damaged).count(b"\n") == len(damaged)


def test_the_planted_batch_is_readable_but_must_be_refused(pools: Pools, log: list[dict]) -> None:
    batch = [json.loads(line) for line in planted_batch(pools, model="router-minilm@1", seed=0)]
    assert len(batch) == 60
    assert not any("metadata" in line["request"] for line in batch)
    assert sum(not 0 <= line["verdict"]["score"] <= 1 for line in batch) == 20
    assert sum(line["response"]["choices"][0]["message"]["content"] == "" for line in batch) == 30
    assert not {line["id"] for line in batch} & {line["id"] for line in log}
    assert min(line["response"]["created"] for line in batch) > max(
        line["response"]["created"] for line in log
    )


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
