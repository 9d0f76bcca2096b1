"""The synthetic Emo-CFG: deterministic, complete, balanced, visible in the pixels, and read by our own reader."""

import json
import re
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from videmo_jax.data.emo_cfg import read_emo_cfg
from videmo_jax.data.synthetic import SyntheticError, draw_scene, render, wording, write_synthetic
from videmo_jax.data.synthetic.expressions import DETECTED_UNITS, Expression, activations
from videmo_jax.data.synthetic.questions import (
    ACTION_TAGS,
    APPEARANCE_TAGS,
    ASPECTS,
    FILES,
    action_tags,
    appearance_tags,
    records,
)
from videmo_jax.data.synthetic.scene import ELEVEN, KINDS, POSES

SCENES = 5 * len(KINDS)
MANY = 40 * len(KINDS)
TEST_NAMES = {
    "CelebV-HQ_Action-Recognition",
    "CelebV-HQ_Appearance-Recognition",
    "CelebV-Text_Action-Caption",
    "CelebV-Text_Appearance-Caption",
    "MEAD_Head-Pose",
    "MEAD_ID",
    "caption_test_sampling_v2_all_example",
    "AffWild2_Action_Unit_Detection",
    "CAS_Single-Label-Micro-Expression-Recognition",
    "CHSIMIv1_Fine-grained-Sentiment-Recognition",
    "CelebV-Text_Emotion-Caption",
    "DFEW_Single-Label-Emotion-Recognition",
    "MAFW_Multiple-Label-Emotion-Recognition",
    "MAFW_Single-Label-Emotion-Recognition",
    "MEAD_Fine-grained-Emotion-Recognition",
    "MELD_Single-Label-Conversational-Emotion-Recognition_new",
    "MER2023_Single-Label-Emotion-Recognition",
    "MOSEI_Single-Label-Sentiment-Recognition",
    "MOSI_Single-Label-Sentiment-Recognition",
    "PERR_Single-Label-Conversational-Emotion-Recognition",
    "RAVDESS_Fine-grained-Emotion-Recognition",
    "QA_test_sampling_all",
}


def scenes_of(kind, count, seed=0, split="train"):
    first = list(KINDS).index(kind)
    return [draw_scene(seed, split, first + turn * len(KINDS)) for turn in range(count)]


@pytest.fixture(scope="module")
def many():
    """Every record of many training scenes."""
    return [record for index in range(MANY) for record in records(0, draw_scene(0, "train", index))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "emo_cfg"
    seen = []
    counts = write_synthetic(root, scenes=SCENES, seed=7, on_clip=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (SCENES, SCENES)
    return root, counts


def test_the_same_scene_gives_the_same_bytes_whatever_came_before():
    later = render(3, draw_scene(3, "train", 40))
    for index in (1, 6):
        render(3, draw_scene(3, "train", index))
    assert draw_scene(3, "train", 40) == draw_scene(3, "train", 40)
    assert np.array_equal(later, render(3, draw_scene(3, "train", 40)))


def test_seeds_splits_and_numbers_give_other_scenes():
    base = draw_scene(3, "train", 40)
    others = [draw_scene(4, "train", 40), draw_scene(3, "test", 40), draw_scene(3, "train", 40 + len(KINDS))]
    assert all(other.people != base.people for other in others)
    people = [str(draw_scene(0, split, i).people) for split in ("train", "test") for i in range(400)]
    assert len(set(people)) == len(people)


@pytest.mark.parametrize("size", [112, 200])
def test_frames_are_well_exposed_and_move(size):
    for index in range(len(KINDS)):
        frames = render(0, draw_scene(0, "train", index), size=size, frames=8)
        assert frames.shape == (8, size, size, 3) and frames.dtype == np.uint8
        assert 20 < frames.mean() < 235 and frames.std() > 20
        assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5


def _still(scene):
    return replace(scene, setting=replace(scene.setting, noise=0.0, shake=0.0, light="bright"))


@pytest.mark.parametrize("emotions", [ELEVEN, ("neutral", "happiness", "repression", "disgust", "surprise", "fear")])
def test_the_emotions_of_a_task_look_different(emotions):
    scene = _still(scenes_of("dfew", 1)[0])
    plain = replace(scene.person, expressions=(), hat=False, tears=False)
    faces = {}
    for emotion in emotions:
        shown = () if emotion == "neutral" else (Expression(emotion, "strong", -1.0, 2.0),)
        faces[emotion] = render(0, replace(scene, people=(replace(plain, expressions=shown),))).astype(int)
    for name, face in faces.items():
        for other, another in faces.items():
            # A face has some 2,000 pixels; a different mouth or brow changes dozens of them clearly.
            changed = (np.abs(face[0] - another[0]).max(axis=-1) > 40).sum()
            assert name == other or changed > 25, (name, other, changed)


@pytest.mark.parametrize(("pose", "side"), [("Left 60 degrees", -1), ("Right 60 degrees", 1), ("Left 30 degrees", -1)])
def test_a_turned_head_shows_its_features_on_that_side(pose, side):
    """The sunglasses, the only black thing here, move to the side that the head turns to (the viewer's)."""
    scene = _still(scenes_of("mead_pose", 1)[0])
    identity = replace(scene.person.identity, glasses="sunglasses", hair_colour="blonde", skin="light", beard="none")
    person = replace(scene.person, identity=identity, hat=False, clothes="white", necktie=False, expressions=())
    setting = replace(scene.setting, backdrop="plain wall", shift=(0.0, 0.0))

    def middle(pose):
        frame = render(0, replace(scene, people=(replace(person, pose=pose),), setting=setting))[0]
        return np.nonzero((frame[20:80] < 50).all(axis=-1))[1].mean()

    assert (middle(pose) - middle("Front")) * side > 4


def test_a_micro_expression_is_short_but_falls_on_a_sampled_frame():
    for scene in scenes_of("cas", 60):
        t = np.arange(16) / 15
        level = np.max(list(activations(scene.person.expressions, t).values()), axis=0)
        assert level[[0, -1]].max() < 0.1 and (level > 0.05).sum() <= 8
        assert level[[0, 5, 10, 15]].max() > 0.5


def test_the_22_test_files_and_all_train_groups_are_there(written):
    root, counts = written
    names = {path.stem for path in (root / "jsons" / "test").glob("*/full/*.json")}
    assert names == TEST_NAMES
    groups = {path.name for path in (root / "jsons" / "train").iterdir()}
    assert groups == {"attribute", "caption", "emotion", "qa", "rationale"}
    assert set(counts) == {*FILES["train"], *FILES["test"]} and min(counts.values()) > 0
    for file, count in counts.items():
        assert len(json.loads((root / "jsons" / file).read_text())) == count


def test_our_reader_takes_every_sample(written):
    root, counts = written
    paths = {}
    for split in ("train", "test"):
        read = read_emo_cfg(root, split)
        assert not read.rejected
        assert len(read.samples) == sum(count for file, count in counts.items() if file.startswith(split))
        paths[split] = {path for sample in read.samples for path in sample.videos}
    assert not paths["train"] & paths["test"]
    on_disk = {path.relative_to(root).as_posix() for path in root.glob("videos/*/*.mp4")}
    assert on_disk == paths["train"] | paths["test"] and len(on_disk) == SCENES
    assert {path.split("/")[1] for path in on_disk} == set(KINDS.values())


def test_a_clip_decodes_to_what_was_rendered(written):
    root, _ = written
    for index in range(0, len(KINDS), 4):
        scene = draw_scene(7, "train", index)
        with av.open(str(root / scene.path)) as container:
            assert container.streams.video[0].average_rate == 8
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        rendered = render(7, scene)
        assert decoded.shape == rendered.shape
        # Luma is kept well; colour edges lose to the halved colour resolution.
        assert np.abs(decoded.mean(axis=-1) - rendered.mean(axis=-1)).mean() < 4


def test_a_second_call_finds_it_and_another_set_is_refused(written, tmp_path):
    root, counts = written
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_synthetic(root, scenes=SCENES, seed=7) == counts
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(SyntheticError, match=r"another synthetic set \(seed=7\), asked for seed=8"):
        write_synthetic(root, scenes=SCENES, seed=8)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SyntheticError, match="holds something else"):
        write_synthetic(tmp_path, scenes=SCENES, seed=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", scenes=SCENES, seed=0, on_clip=stop)
    assert list(tmp_path.iterdir()) == []


def test_worker_processes_write_the_same_set(tmp_path):
    small = {"scenes": 2 * len(KINDS), "seed": 1, "size": 64, "frames": 4}
    for name, workers in (("one", 0), ("many", 2)):
        write_synthetic(tmp_path / name, **small, workers=workers)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) > small["scenes"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


@pytest.mark.parametrize("wrong", [{"scenes": 20}, {"size": 111}, {"size": 32}, {"frames": 2}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(SyntheticError, match=next(iter(wrong))):
        write_synthetic(tmp_path / "set", **{"scenes": SCENES, "seed": 0} | wrong)


def _options(question):
    return dict(re.findall(r"^\(([A-Z])\) (.+)$", question, flags=re.MULTILINE))


def test_answers_have_the_official_forms(many):
    forms = Counter()
    for record in many:
        options, answer, name = _options(record.question), record.answer, record.file.rsplit("/", 1)[1]
        if name.startswith("MAFW_Multiple"):
            assert set(answer) <= set(options) and list(answer) == sorted(set(answer)) and answer
        elif options:
            letter, text = re.fullmatch(r"\(([A-Z])\) (.+)", answer).groups()
            assert options[letter] == text and len(set(options.values())) == len(options)
        elif name.startswith(("CelebV-HQ", "AffWild2")):
            known = (*APPEARANCE_TAGS, *ACTION_TAGS, *DETECTED_UNITS, "none")
            assert set(answer.split(",")) <= set(known)
        else:
            assert answer[0].isupper() and answer.endswith(".") and "  " not in answer
        assert bool(record.source) == name.startswith("QA_")
        forms["choice" if options else "open"] += 1
    assert {record.source.rsplit("QA_", 1)[1] for record in many if record.source} == set(ASPECTS)
    assert len(ASPECTS) == 15 and min(forms.values()) > 500


CLASSES = {
    "MEAD_Head-Pose": 7,
    "MEAD_ID": 2,
    "CAS_Single-Label-Micro-Expression-Recognition": 5,
    "DFEW_Single-Label-Emotion-Recognition": 7,
    "MAFW_Single-Label-Emotion-Recognition": 11,
    "MOSI_Single-Label-Sentiment-Recognition": 3,
    "PERR_Single-Label-Conversational-Emotion-Recognition": 5,
}


@pytest.mark.parametrize(("name", "classes"), CLASSES.items())
def test_answers_and_their_places_are_balanced(many, name, classes):
    answers = [record.answer for record in many if record.file.endswith(f"/{name}.json")]
    assert len(answers) == 40
    for part in (slice(0, 3), slice(4, None)):
        counts = Counter(answer[part] for answer in answers)
        assert len(counts) == classes and max(counts.values()) - min(counts.values()) <= 1


def test_questions_on_aspects_give_no_hint(many):
    """The first of two options is right about every second time, and so is each wording of a pair."""
    pairs = [r for r in many if r.source and len(_options(r.question)) == 2]
    first = sum(record.answer.startswith("(A)") for record in pairs)
    assert abs(first - len(pairs) / 2) < 3 * np.sqrt(len(pairs)) / 2
    right, offered = Counter(), Counter()
    for record in pairs:
        key = record.question.split("\n")[0], tuple(sorted(_options(record.question).values()))
        offered[key] += 1
        right[key] += record.answer[4:] == key[1][0]
    scores = [(right[key] - n / 2) / (np.sqrt(n) / 2) for key, n in offered.items()]
    assert np.mean(np.square(scores)) < 2  # 1 where each is a fair coin.


def test_every_tag_that_is_offered_occurs():
    shown = Counter()
    for scene in scenes_of("celebv_hq", 1500):
        shown.update(appearance_tags(scene.person) + action_tags(scene.person))
    offered = {*APPEARANCE_TAGS, *ACTION_TAGS}
    assert all(shown[tag] > 8 for tag in offered), offered - set(shown)


@pytest.mark.parametrize("kind", ["dfew", "perr", "mosi"])
def test_the_text_alone_does_not_tell_the_letter(kind):
    """Each option is right as often as any other, and at each place."""
    right, places = Counter(), Counter()
    for scene in scenes_of(kind, 420):
        record = next(r for r in records(0, scene) if "/emotion/" in r.file)
        right[record.answer[4:]] += 1
        places[record.answer[1]] += 1
    for counts in (right, places):
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_linear_probe_reads_the_pose_of_unseen_people():
    """Linear discriminants on the gradients of one small frame; all other tasks: tests/benchmarks/probes.py."""
    rows, labels = {}, {}
    for split, count in (("train", 210), ("test", 70)):
        scenes = scenes_of("mead_pose", count, split=split)
        grey = np.stack([render(0, scene, size=64, frames=4)[0].mean(axis=-1) for scene in scenes])
        steps = [np.diff(grey, axis=axis, prepend=0) / grey.mean() for axis in (1, 2)]
        sides = np.stack([np.maximum(sign * step, 0) for step in steps for sign in (1, -1)])
        blocks = np.sqrt(sides.reshape(4, count, 16, 4, 16, 4).mean(axis=(3, 5)))
        rows[split] = blocks.transpose(1, 0, 2, 3).reshape(count, -1)
        labels[split] = [scene.person.pose for scene in scenes]
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(rows["train"], labels["train"])
    assert probe.score(rows["test"], labels["test"]) > (1 + 1 / len(POSES)) / 2


def test_a_fine_caption_chains_attribute_expression_and_emotion():
    for scene in scenes_of("mafw_single", 22):
        caption = next(r.answer for r in records(0, scene) if "/caption/" in r.file)
        places = [
            caption.index(wording.hair(scene.person)),
            caption.lower().index(wording.expression_clauses(scene.person, wording.shown_units(scene.person))),
            caption.rindex(scene.person.emotion),
        ]
        assert places == sorted(places)


def test_pairs_show_the_same_or_another_person():
    for scene in scenes_of("mead_pair", 20):
        left, right = (person.identity for person in scene.people)
        assert scene.same == (left == right)
    assert {scene.person.pose for scene in scenes_of("mead_pose", 7)} == set(POSES)
