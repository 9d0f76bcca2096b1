"""Answers to items after reasoning, on the small synthetic set."""

import json
import shutil
from dataclasses import replace

import pytest

from launch import evaluate as command
from videmo_jax.affective.text import read_tree
from videmo_jax.data.video import read_clip
from videmo_jax.evaluation.answers import runner
from videmo_jax.evaluation.answers.answerer import Answerer
from videmo_jax.evaluation.answers.items import read_items
from videmo_jax.evaluation.answers.journal import JournalError
from videmo_jax.evaluation.answers.predictions import read_folder
from videmo_jax.evaluation.answers.reasoned import item_seed, reasoned
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.reasoning import Prompts, Settings, Subject, reason

SETTINGS = Settings(candidates=2, max_new_tokens=6, prompts=Prompts("Look.", "And shown?", "And felt?", "So?"))
RUN = {"threads": 2, "cache_bytes": 2**20}


@pytest.fixture(scope="module")
def answerer(checkpoint):
    return Answerer(checkpoint, Decoding(6), "float32")


def all_of(*arguments, **more):
    return {item.id: outcome for part in reasoned(*arguments, **more) for item, outcome in part}


def test_items_are_answered_with_their_reasoning_in_view(answerer, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "copied")
    items = read_items(root, "train", "full", ["MEAD_ID"])[:5]
    (root / items[2].blank.videos[0]).write_bytes(b"noise" * 100)
    together = all_of(answerer, items, root, SETTINGS, batch=4, **RUN)
    assert set(together) == {item.id for item in items}
    broken = {item.id for item in items if item.blank.videos == items[2].blank.videos}
    for item in items:
        outcome = together[item.id]
        if item.id in broken:
            assert "cannot be read as a video" in outcome
            continue
        clips = tuple(read_clip(root / video, answerer.inputs.frames) for video in item.sample.videos)
        subject = Subject("x", clips, item.sample.prompt, item_seed(item, 0))
        (alone,) = reason(answerer.policy, [subject], SETTINGS, read_tree)
        assert outcome.answer.text == alone.answer.text and outcome.tree == alone.tree
        assert [step.chosen for step in outcome.steps] == [step.chosen for step in alone.steps]
    assert len({item_seed(item, 0) for item in items} | {item_seed(items[0], 1)}) == len(items) + 1


def test_items_without_room_say_so(answerer, dataset):
    items = read_items(dataset, "train", "full", ["MEAD_ID"])[:1]
    ((outcome,),) = (
        all_of(answerer, items, dataset, replace(SETTINGS, max_prompt_tokens=30), batch=3, **RUN).values(),
    )
    assert "more than the limit of 30" in outcome


def test_an_evaluation_with_reasoning_goes_on_and_keeps_its_trees(checkpoint, answerer, dataset, tmp_path):
    how = runner.Settings("train", tasks=("MEAD_ID",), max_new_tokens=6, batch=4, threads=2, reasoning=SETTINGS)

    def kill_half_way(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.evaluate(checkpoint, dataset, tmp_path / "run", how, kill_half_way)
    runner.evaluate(checkpoint, dataset, tmp_path / "run", how)
    lines = read_folder(tmp_path / "run" / "predictions")["MEAD_ID"]
    items = read_items(dataset, "train", "full", ["MEAD_ID"])
    expected = all_of(answerer, items, dataset, SETTINGS, batch=4, **RUN)
    assert [line.response for line in lines] == [expected[item.id].answer.text for item in items]
    kept = [json.loads(line) for path in (tmp_path / "run" / "reasoning").iterdir() for line in path.open()]
    trees = {line["key"].rpartition(":")[0]: line["tree"] for line in kept}
    assert trees == {id: outcome.to_json()["tree"] for id, outcome in expected.items()}
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["reasoning"]["candidates"] == 2 and recipe["reasoning"]["prompts"]["check"] == "So?"
    with pytest.raises(JournalError, match="another recipe"):
        runner.evaluate(checkpoint, dataset, tmp_path / "run", replace(how, reasoning=None))


def test_the_command_says_how_to_reason(capsys):
    flags = ["--checkpoint", "x", "--data", "y", "--out", "z", "--max-new-tokens", "900"]
    assert command.reasoning_of(command.parse(flags)) is None
    search = command.reasoning_of(command.parse([*flags, "--reasoning", "4", "--scorer", "mbr+yes"]))
    assert (search.candidates, search.temperature, str(search.scorer)) == (4, 0.9, "mbr+yes")
    assert (search.max_new_tokens, search.last.max_new_tokens) == (512, 900)
    assert command.reasoning_of(command.parse([*flags, "--reasoning", "1"])).temperature == 0
    with pytest.raises(SystemExit):
        command.parse([*flags, "--reasoning", "0"])
    assert "--reasoning: '0' is no whole number from 1 on" in capsys.readouterr().err
