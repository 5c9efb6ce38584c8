"""The helpdesk's pools and CLINC150's: sizes, disjointness, and the same from the same seed."""

import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from examples.helpdesk.clinc import clinc
from examples.helpdesk.generator import INTENTS_FILE, POOLS, SIZES, Pools, ScenarioError, helpdesk, normalised

ROOT = Path(__file__).parents[2]
CLINC = Path(os.environ.get("STEMMA_TEST_DATA", ROOT / "../shared/data")) / "clinc150_dev75"

needs_clinc = [
    pytest.mark.data,
    pytest.mark.skipif(
        not CLINC.is_dir(), reason=f"no {CLINC}: set STEMMA_TEST_DATA to the folder of real data"
    ),
]


@pytest.fixture(
    scope="module",
    params=["helpdesk-full", "helpdesk-tiny", pytest.param("clinc-full", marks=needs_clinc),
            pytest.param("clinc-tiny", marks=needs_clinc)],
)  # fmt: skip
def pools(request: pytest.FixtureRequest) -> Pools:
    name, _, scale = request.param.partition("-")
    return helpdesk(seed=0, scale=scale) if name == "helpdesk" else clinc(CLINC, seed=0, scale=scale)


def test_the_book_has_enough_intents_domains_patterns_and_confusable_pairs() -> None:
    book = tomllib.loads(INTENTS_FILE.read_text(encoding="utf-8"))
    intents = book["intent"]
    assert len(intents) >= 24
    assert len({intent["domain"] for intent in intents.values()}) >= 4
    assert {len({normalised(one) for one in intent["patterns"]}) >= 30 for intent in intents.values()} == {
        True
    }
    assert len(book["confusable"]) >= 4
    assert {name for pair in book["confusable"] for name in pair} <= set(intents)


def test_three_seeds_speak_more_than_three_thousand_different_texts() -> None:
    spoken = {
        normalised(utterance.text)
        for seed in range(3)
        for pool in POOLS
        for utterance in getattr(helpdesk(seed=seed, scale="full"), pool)
    }
    assert len(spoken) >= 3_000


@pytest.mark.parametrize("scale", ["full", "tiny"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_every_seed_fills_every_pool_for_every_intent(seed: int, scale) -> None:
    pools = helpdesk(seed=seed, scale=scale)
    sizes = SIZES[scale]
    assert len(pools.intents) == (sizes.intents or 24)
    for pool in POOLS:
        counted = Counter(utterance.intent for utterance in getattr(pools, pool))
        assert counted == dict.fromkeys(pools.intents, getattr(sizes, pool))


def test_no_pattern_is_in_two_pools(pools: Pools) -> None:
    owners = Counter(
        pattern for pool in POOLS for pattern in {utterance.pattern for utterance in getattr(pools, pool)}
    )
    assert len(owners) > 50
    assert set(owners.values()) == {1}


def test_no_text_is_there_twice(pools: Pools) -> None:
    texts = Counter(normalised(utterance.text) for pool in POOLS for utterance in getattr(pools, pool))
    assert len(texts) > 100
    assert texts.most_common(1)[0][1] == 1


def test_no_hole_of_a_pattern_is_left_open(pools: Pools) -> None:
    if pools.name == "helpdesk":
        assert [u.text for pool in POOLS for u in getattr(pools, pool) if set(u.text) & set("{}|()")] == []


def test_a_cut_down_list_keeps_two_confusable_pairs(pools: Pools) -> None:
    assert len(pools.confusable) >= 2
    assert {intent for pair in pools.confusable for intent in pair} <= set(pools.intents)
    assert set(pools.descriptions) == set(pools.intents)


def test_another_seed_gives_other_pools() -> None:
    assert helpdesk(seed=0, scale="tiny") != helpdesk(seed=1, scale="tiny")


def test_pools_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = "from examples.helpdesk.generator import helpdesk; print(ascii(helpdesk(seed=0, scale='full')))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("0", "1", "12345")
    }
    assert len(printed) == 1
    assert ascii(helpdesk(seed=0, scale="full")).encode() == printed.pop().strip()


@pytest.mark.data
@pytest.mark.skipif(not CLINC.is_dir(), reason=f"no {CLINC}: set STEMMA_TEST_DATA to the folder of real data")
def test_clinc_takes_each_pool_from_its_own_split() -> None:
    pools = clinc(CLINC, seed=0, scale="full")
    assert len(pools.intents) == 30
    assert len(pools.clean) == 8 * 30
    assert len(pools.traffic) >= 40 * 30
    assert len(pools.gate) >= 19 * 30
    for pool, split in (("clean", "train"), ("traffic", "train"), ("gate", "val"), ("report", "test")):
        assert {u.pattern.split("/")[1].split("-")[0] for u in getattr(pools, pool)} == {split}


def test_a_folder_without_clinc_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("something else")
    with pytest.raises(ScenarioError, match=r"found \['readme.txt'\], expected data_dev75.json") as refused:
        clinc(tmp_path, seed=0, scale="full")
    assert "pass the folder" in str(refused.value)
    with pytest.raises(ScenarioError, match="no such folder"):
        clinc(tmp_path / "absent", seed=0, scale="full")


def test_a_clinc_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data_dev75.json").write_text('{"train": []}')
    (tmp_path / "subset_30_dev.json").write_text("{}")
    with pytest.raises(ScenarioError, match=r"found \['train'\], expected an object with the splits"):
        clinc(tmp_path, seed=0, scale="full")


def test_a_clinc_intent_without_lines_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data_dev75.json").write_text('{"train": [["hi", "greeting"]], "val": [], "test": []}')
    (tmp_path / "subset_30_dev.json").write_text('{"small_talk": ["greeting", "farewell"]}')
    with pytest.raises(ScenarioError, match=r"\['farewell'\]"):
        clinc(tmp_path, seed=0, scale="full")
