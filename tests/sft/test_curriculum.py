"""Stages: which samples each holds and how often, worked out by hand on a small dataset."""

from collections import Counter

import numpy as np
import pytest

from videmo_jax.data.source import Files
from videmo_jax.sft.curriculum import CurriculumError, Levels, mixture, read_stages
from videmo_jax.sft.recipe import in_stages, sft_recipe
from videmo_jax.tasks.taxonomy import declared_task

# 40 attribute, 20 expression, 10 emotion, 6 text-only, 4 of a file that nobody knows
COUNTS = {
    "train/attribute/full/MEAD_Head-Pose.json": 30,
    "train/qa/full/QA_train.json": 10,
    "train/emotion/full/DFEW_Single-Label-Emotion-Recognition.json": 20,
    "train/caption/full/caption_train.json": 10,
    "instructions/magpie.jsonl": 6,
    "train/emotion/full/Mine.json": 4,
}


@pytest.fixture
def levels():
    file = np.repeat(np.arange(len(COUNTS), dtype=np.int32), list(COUNTS.values()))
    return Levels(Files(tuple(COUNTS), file), np.ones(len(file), bool), (declared_task("Mine=emotion/choice"),))


def stages_of(arg=None, **fields):
    config = in_stages(sft_recipe("tiny"), arg)
    for name, value in fields.items():
        stage, _, field = name.partition("__")
        config.stages[stage][field] = value
    return read_stages(config.to_dict())


def held(stage, earlier, levels):
    """Samples an epoch has of each file."""
    order = mixture(stage, earlier, levels).order(0, 0)
    return dict(Counter(list(COUNTS)[file].split("/")[-1].split(".")[0] for file in levels.files.file[order]))


def test_stages_hold_their_levels_with_replay_and_instructions(levels):
    every, chosen = stages_of(expression__replay=0.2, emotion__replay=0.25, emotion__instructions=0.0)
    assert [stage.name for stage in every] == ["attribute", "expression", "emotion"] and chosen == every
    first, second, third = every
    assert held(first, every[:0], levels) == {"MEAD_Head-Pose": 30, "QA_train": 10, "magpie": 4}  # a tenth of 44
    second = held(second, every[:1], levels)
    assert second.pop("magpie") == 3  # a tenth of 29
    assert second.pop("DFEW_Single-Label-Emotion-Recognition") == 20
    assert sum(second.values()) == 6 and set(second) <= {"MEAD_Head-Pose", "QA_train"}  # a fifth of 29
    third = held(third, every[:2], levels)
    assert (third.pop("caption_train"), third.pop("Mine")) == (10, 4)
    assert sum(third.values()) == 5  # a quarter of 19


def test_weights_are_passes_over_files(levels):
    weights = (("MEAD_*", 0.5), ("QA_*", 2.0))
    every, _ = stages_of(attribute__weights=weights, attribute__instructions=0.0)
    assert held(every[0], [], levels) == {"MEAD_Head-Pose": 15, "QA_train": 20}
    every, _ = stages_of(attribute__weights=(("MEAD_*", 0.0),), attribute__instructions=0.0)
    assert held(every[0], [], levels) == {"QA_train": 10}
    every, _ = stages_of(attribute__weights=(("MAED_*", 0.0),))
    with pytest.raises(CurriculumError, match=r"stages.attribute.weights: no annotation file is named 'MAED_\*'"):
        mixture(every[0], [], levels)


def test_one_stage_of_all_holds_everything(levels):
    every, _ = read_stages(sft_recipe("tiny").to_dict())
    assert sum(held(every[0], [], levels).values()) == 74 + 6 + 2  # a tenth of 82 is 8: two texts come twice


def test_stages_take_the_configs_own_where_they_name_nothing():
    every, chosen = stages_of("stage2", expression__learning_rate=0.5, expression__epochs=7.0)
    (second,) = chosen
    assert second is every[1] and second.name == "expression"
    assert (second.epochs, second.optimizer.learning_rate, second.optimizer.schedule) == (7.0, 0.5, "cosine")
    assert (every[0].epochs, every[0].optimizer.learning_rate) == (3.0, 2e-5)


def test_a_file_that_nobody_knows_is_named_with_what_to_do(levels):
    every, _ = stages_of()
    unknown = Levels(levels.files, levels.usable, ())
    with pytest.raises(CurriculumError, match=r"Mine.json: no official .* declare it in data.tasks"):
        mixture(every[0], [], unknown)


WRONG = {
    "levels": ({"attribute__levels": ("mood",)}, "stages.attribute.levels: mood"),
    "shares": ({"emotion__replay": 0.95}, "below 1 together"),
    "epochs": ({"emotion__epochs": -1.0}, "epochs -1 must be above 0"),
    "a name": ({"arg": "stage9"}, "no stage 'stage9' in the curriculum; it has attribute, expression, emotion"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_has_no_meaning_is_refused(wrong):
    fields, expected = WRONG[wrong]
    with pytest.raises(CurriculumError, match=expected):
        stages_of(**fields)


def test_a_stage_without_samples_is_named(levels):
    every, _ = stages_of()
    with pytest.raises(CurriculumError, match="stage emotion: not a single sample of its own"):
        mixture(every[2], every[:2], Levels(levels.files, np.zeros_like(levels.usable), levels.declared))
