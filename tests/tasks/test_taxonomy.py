"""The table of tasks against the files that the data really has."""

import json
import re
from collections import Counter

import pytest

from videmo_jax.data.synthetic.questions import FILES
from videmo_jax.tasks.taxonomy import ASPECTS, TASKS, declared_task, task_of


def test_every_file_of_both_splits_has_its_task_and_every_task_its_file():
    for split, count in (("train", 23), ("test", 22)):
        tasks = {task_of(file) for file in FILES[split]}
        assert None not in tasks and len(tasks) == len(FILES[split]) == count
    written = {file.rsplit("/", 1)[1] for files in FILES.values() for file in files}
    assert written == {f"{stem}.json" for task in TASKS for stem in task.files}


def test_unknown_files_have_no_task():
    assert task_of("MEAD_ID") is task_of("a/b/MEAD_ID.json") is not None
    assert task_of("mead_id.json") is None and task_of("") is None


def test_the_tasks_of_each_stage_are_those_of_the_paper():
    """Six closed tasks and the open attributes; 14 files on expressions; captions and rationales."""
    assert Counter(task.stage for task in TASKS) == {"attribute": 7, "expression": 14, "emotion": 2}


def test_forms_are_what_the_answers_look_like(emo_cfg_mini):
    for path in sorted((emo_cfg_mini / "jsons").glob("*/*/full/*.json")):
        task = task_of(path.name)
        for record in json.loads(path.read_text()):
            question, answer = (message["content"] for message in record["messages"])
            options = [line for line in question.split("\n")[1:] if line.startswith("(")]
            words = answer.split(",")
            looks = {
                "choice": answer in options,
                "multi_label": bool(options) and answer.isalpha() and answer.isupper(),
                "tags": answer == "none" or all(word in question for word in words),
                "units": answer == "none" or all(word[:2] == "AU" and word[2:].isdigit() for word in words),
            }
            # Some of the open questions offer options too, the other forms never do.
            assert looks.get(task.form, not options or task.form == "open_qa"), (path, answer)


def test_labels_are_those_that_the_questions_list(emo_cfg_mini):
    seen = set()
    for path in sorted((emo_cfg_mini / "jsons" / "test").glob("*/full/*.json")):
        task = task_of(path.name)
        for record in json.loads(path.read_text()):
            question = record["messages"][0]["content"]
            if task.form in ("tags", "units"):
                listed = re.split("none: |Choose from ", question)[1].rstrip(".").split(", ")
            elif task.form == "multi_label":
                listed = re.findall(r"^\((.)\)", question, re.MULTILINE)
            else:
                assert task.labels == ()
                continue
            assert list(task.labels) == listed
            seen.add(task.name)
    assert len(seen) == 4
    assert [len(task.labels) for task in TASKS if task.labels] == [40, 35, 11, 12] and len(ASPECTS) == 15


def test_scores_and_rewards_follow_the_form_of_answers():
    """PAPER.md sections 3 and 6."""
    by_file = {stem: task for task in TASKS for stem in task.files}
    assert (
        by_file["CelebV-HQ_Appearance-Recognition"].metric == by_file["AffWild2_Action_Unit_Detection"].metric == "f1"
    )
    assert (by_file["MEAD_ID"].metric, by_file["MEAD_ID"].reward) == ("accuracy", "rule")
    captions = by_file["CelebV-Text_Emotion-Caption"], by_file["caption_test_sampling_v2_all_example"]
    assert [(task.metric, task.reward) for task in captions] == [("score", "caption"), ("six_scores", "tree")]
    assert {task.name for task in TASKS if task.reward == "tree"} == {"fine-grained captions"}


def test_users_declare_files_of_their_own():
    mine = declared_task("MyFaces_*=expression/choice")
    assert task_of("train/emotion/full/MyFaces_2.json", [mine]) is mine
    assert task_of("MyFaces_2.json") is None
    assert task_of("MEAD_ID.json", [mine]).name == "identity"
    for wrong in ("MyFaces", "=expression/choice", "MyFaces=joy/choice", "MyFaces=expression/guess"):
        with pytest.raises(ValueError, match="expected PATTERN=STAGE/FORM"):
            declared_task(wrong)
