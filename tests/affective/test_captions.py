"""The hand-written trees: one for every caption of emo_cfg_mini, in the vocabulary."""

import pytest

from tests.affective.captions import examples
from videmo_jax.affective.lexicon import ASPECTS
from videmo_jax.files.json_records import json_records

CAPTIONS = {
    "caption": ("caption_train", "caption_test_sampling_v2_all_example"),
    "emotion": ("CelebV-Text_Emotion-Caption",),
    "action": ("CelebV-Text_Action-Caption",),
    "appearance": ("CelebV-Text_Appearance-Caption",),
    "rationale": ("rationale_train",),
}


def test_every_caption_has_its_tree(emo_cfg_mini):
    written = {(example.name, example.caption) for example in examples("emo_cfg_mini")}
    annotated = {
        (f"{kind} {record['videos'][0][len('videos/') : -len('.mp4')]}", record["messages"][-1]["content"])
        for kind, stems in CAPTIONS.items()
        for stem in stems
        for path in emo_cfg_mini.rglob(f"{stem}.json")
        for record in json_records(path)
    }
    assert written == annotated


@pytest.mark.parametrize("example", examples("emo_cfg_mini"), ids=lambda example: example.name.replace(" ", "-"))
def test_trees_stay_in_the_vocabulary(example):
    assert all(node.aspect in ASPECTS[node.level] for node in example.tree.walk())
