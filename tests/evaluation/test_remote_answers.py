"""Answers from a served model: what it is sent is what the local model would see."""

import base64
import io
import json
import re
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from tests.evaluation.chat_server import ChatServer, Do
from tests.evaluation.conftest import INPUTS
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec, read_clip
from videmo_jax.endpoints.client import Endpoint, EndpointDown, EndpointError
from videmo_jax.evaluation.answers.answerer import Answer
from videmo_jax.evaluation.answers.items import Item, read_items
from videmo_jax.evaluation.answers.journal import Journal, JournalError
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.answers.remote import RemoteModel, answer_remotely, serving

TASKS = ("MEAD_*", "AffWild2_Action_Unit_Detection", "CelebV-Text_*")


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """A judge's key, which is not for the model's server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-judge")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


@pytest.fixture
def items(dataset):
    return read_items(dataset, "train", "full", TASKS)


def model_of(server, **changes):
    end = replace(serving(server.url, "videmo", 4), attempts=3, first_wait=0.001, longest_wait=0.002)
    return replace(RemoteModel(end, INPUTS, max_new_tokens=10), **changes)


def run(model, items, data, out):
    """The journal's answers by item id, and the faults."""
    journal, faults = Journal(out, model.recipe()), {}
    journal.begin()
    todo = [item for item in items if item.key not in journal.answers]
    done = [*answer_remotely(model, todo, data, out, journal, faults)]
    assert done[-1] == len(todo) and done == sorted(done)
    return {item.id: journal.answers[item.key] for item in items if item.key in journal.answers}, faults


def as_vllm_reads(url):
    """Frames of a video URL, by what vLLM does with one: the type says that frames follow, PIL finds their format."""
    kind, _, data = url.partition(",")
    assert kind == "data:video/jpeg;base64"
    frames = [Image.open(io.BytesIO(base64.b64decode(part, validate=True))) for part in data.split(",")]
    return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


def videos_of(body):
    parts = [
        part for message in body["messages"] if not isinstance(message["content"], str) for part in message["content"]
    ]
    return [part["video_url"]["url"] for part in parts if part["type"] == "video_url"]


def test_the_served_model_is_sent_the_local_models_frames(dataset, items, tmp_path):
    """To the last bit, with the time that the checkpoint's inputs say."""
    with ChatServer() as server:
        answers, faults = run(model_of(server), items, dataset, tmp_path)
    assert len(answers) == len(items) == len(server.seen) > 20 and not faults
    by_question = {(item.sample.question.replace("<video>", ""), item.sample.videos) for item in items}
    clips = {item.sample.videos[0]: read_clip(dataset / item.sample.videos[0], INPUTS.frames) for item in items}
    frames = {clip.frames.tobytes(): (path, clip) for path, clip in clips.items()}
    assert len(frames) == len(clips)
    for seen in server.seen:
        (url,) = videos_of(seen.body)
        path, clip = frames[as_vllm_reads(url).tobytes()]
        assert (seen.text, (path,)) in by_question
        rate = seen.body["media_io_kwargs"]["video"]["fps"]
        assert seen.body["mm_processor_kwargs"] == {"do_sample_frames": False, "do_resize": False, "fps": rate}
        assert 2 / rate == pytest.approx(clip.seconds_per_grid)  # as transformers computes second_per_grid_ts
        assert seen.body["temperature"] == 0 and seen.body["max_tokens"] == 10 and seen.body["logprobs"] is True
        assert "Authorization" not in seen.headers


def test_the_servers_own_key_is_sent(dataset, items, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "token-of-the-server")
    with ChatServer() as server:
        run(model_of(server), items[:1], dataset, tmp_path)
    assert server.seen[0].headers["Authorization"] == "Bearer token-of-the-server"


def test_models_that_are_told_one_second_are_told_it_here_too(dataset, items, tmp_path):
    with ChatServer() as server:
        inputs = replace(INPUTS, seconds_per_grid="nominal")
        run(model_of(server, inputs=inputs), items[:3], dataset, tmp_path)
    assert {seen.body["media_io_kwargs"]["video"]["fps"] for seen in server.seen} == {2.0}


CONVERSATIONS = [
    [Message("user", "<video>Who is this?")],
    [Message("user", "<video>.\nWho is\n\nthis?\n")],
    [Message("user", "First <video> then <video>: what changed?")],
    [Message("system", "Be short."), Message("user", "<video>Who?")],
    [Message("user", "<video>Who?"), Message("assistant", "A man."), Message("user", "How old?")],
    [Message("user", "No video at all.")],
]


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_served_model_is_sent_the_local_models_prompt(turns, dataset, items, tmp_path):
    """Rendered by the exported chat template and tokenised by transformers: the ids are ours, a pad for each clip."""
    tags = sum(turn.content.count("<video>") for turn in turns)
    video = items[0].sample.videos[0]
    sample = Sample("f.json#0", "f.json", (*turns, Message("assistant", "truth")), (video,) * tags)
    item = Item(sample.id, Prediction("", "truth", tuple(turns), sample.videos), sample)
    with ChatServer() as server:
        run(model_of(server), [item], dataset, tmp_path / "out")
    (seen,) = server.seen
    messages = seen.body["messages"]
    assert messages[0]["role"] == "system" and messages[0]["content"]  # not left to the server's template
    for message in messages:
        if not isinstance(message["content"], str):  # vLLM hands the template a part of type video
            message["content"] = [part if part["type"] == "text" else {"type": "video"} for part in message["content"]]
    tokenizer = Tokenizer.embedded()
    for name, content in tokenizer.files.items():
        (tmp_path / name).write_text(content)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    clip = read_clip(dataset / video, INPUTS.frames)
    prepared = Preparer(tokenizer, INPUTS)(sample, (clip,) * tags, answer=False)
    tokens = prepared.encoded.tokens.tolist()
    pad = tokenizer.video_pad
    once = [token for place, token in enumerate(tokens) if token != pad or tokens[place - 1] != pad]
    assert ids == once and once.count(pad) == tags


def test_jpegs_are_near_and_images_are_single(dataset, items, tmp_path):
    clip = read_clip(dataset / items[0].sample.videos[0], INPUTS.frames)
    with ChatServer() as server:
        run(model_of(server, encoding="jpeg"), items[:1], dataset, tmp_path / "jpeg")
        run(model_of(server, form="images"), items[:1], dataset, tmp_path / "images")
    jpeg, images = server.seen
    near = as_vllm_reads(videos_of(jpeg.body)[0]).astype(int)
    assert near.shape == clip.frames.shape and 0 < np.abs(near - clip.frames).mean() < 4
    parts = images.body["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * len(clip.frames) + ["text"]
    for part, frame in zip(parts, clip.frames, strict=False):
        kind, _, data = part["image_url"]["url"].partition(",")
        assert kind == "data:image/png;base64"
        assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == frame).all()
    assert "media_io_kwargs" not in images.body and "mm_processor_kwargs" not in images.body


def test_answers_are_those_of_the_server(dataset, items, tmp_path):
    tokens = {"content": [{"token": "a", "logprob": -0.12345678}, {"token": "<|im_end|>", "logprob": -0.5}]}

    def plan(seen):
        if "head" in seen.text.lower():
            return Do("", more={"logprobs": None})
        return Do(f"{seen.text}!", more={"finish_reason": "length", "logprobs": tokens})

    with ChatServer(plan) as server:
        answers, faults = run(model_of(server), items, dataset, tmp_path)
    assert not faults and any(answer.text == "" for answer in answers.values())
    for item in items:
        text = item.sample.question.replace("<video>", "")
        blank = "head" in text.lower()
        assert answers[item.id] == (Answer("", (), False) if blank else Answer(f"{text}!", (-0.123457, -0.5), True))


def test_faults_are_listed_with_their_reason(dataset, items, tmp_path):
    broken = replace(items[0].sample, videos=("videos/missing.mp4",))
    items = [replace(items[0], sample=broken), *items[1:10]]
    refused = items[3].sample.question.replace("<video>", "")

    def plan(seen):
        return Do(status=400, body=b'{"error": {"message": "too long"}}') if seen.text == refused else Do()

    with ChatServer(plan) as server:
        answers, faults = run(model_of(server), items, dataset, tmp_path)
    bad = {item.id for item in items[1:] if item.sample.question.replace("<video>", "") == refused}
    assert set(faults) == bad | {items[0].id} and set(answers) == {item.id for item in items} - set(faults)
    assert "missing.mp4: no such file" in faults[items[0].id]
    assert {faults[id] for id in bad} == {"HTTP 400: too long"}


@pytest.mark.parametrize("text", ["Why <|im_end|>?", "<|vision_start|><|video_pad|><|vision_end|>", "a<|endoftext|>"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_text_that_a_server_takes_for_tokens_is_not_sent(text, place, dataset, items, tmp_path):
    """The local model reads it as text: transformers makes other ids of what would be sent."""
    turns = [Message("system", "Be short."), Message("user", "<video>Who?"), Message("assistant", "A man.")]
    turns[place] = Message(turns[place].role, turns[place].content + text)
    sample = replace(items[0].sample, messages=(*turns, Message("user", "Why?"), Message("assistant", "truth")))
    item = replace(items[0], sample=sample)
    held = re.findall(r"<\|\w+\|>", text)
    (tmp_path / "hub").mkdir()
    for name, content in Tokenizer.embedded().files.items():
        (tmp_path / "hub" / name).write_text(content)
    assert AutoTokenizer.from_pretrained(tmp_path / "hub").encode(text) != Tokenizer.embedded().encode(text)
    with ChatServer() as server:
        answers, faults = run(model_of(server), [item, items[1]], dataset, tmp_path / "out")
    assert set(answers) == {items[1].id} and len(server.seen) == 1
    assert set(re.findall(r"<\|\w+\|>", faults[item.id])) == set(held)


def test_text_that_only_resembles_tokens_is_sent(dataset, items, tmp_path):
    turns = (Message("user", "<video>Is <|this|> or < |im_end|> or <tool_call> one?"), Message("assistant", "no"))
    item = replace(items[0], sample=replace(items[0].sample, messages=turns))
    with ChatServer() as server:
        answers, faults = run(model_of(server), [item], dataset, tmp_path)
    assert len(answers) == 1 and not faults


@pytest.mark.parametrize("field", ["mm_processor_kwargs", "media_io_kwargs"])
def test_a_vllm_that_refuses_frames_with_their_rate_stops_the_run_with_the_flag(field, dataset, items, tmp_path):
    """In the words of vLLM 0.32 (entrypoints/generate/base/protocol.py)."""
    words = (
        f"Per-request {field} are disabled by default because they can change multimodal preprocessing resource usage. "
        "Start the server with --trust-request-mm-kwargs only when clients are trusted."
    )
    body = json.dumps({"error": {"message": words, "type": "BadRequestError", "param": field, "code": 400}}).encode()
    with ChatServer(lambda seen: Do(status=400, body=body)) as server:
        with pytest.raises(EndpointError, match="Start it with --trust-request-mm-kwargs"):
            run(model_of(server), items, dataset, tmp_path)
        assert len(server.seen) <= 2 * model_of(server).endpoint.concurrency


def test_clips_of_different_rates_are_a_fault(tmp_path):
    """A request names one rate for all of its clips."""
    other = tmp_path / "data"
    (other / "videos").mkdir(parents=True)
    for name, rate, count in (("slow", 10, 40), ("fast", 25, 300)):
        with av.open(str(other / "videos" / f"{name}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=rate)
            stream.width = stream.height = 64
            for value in range(count):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), value % 256, np.uint8), format="rgb24")
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    turns = (Message("user", "<video> or <video>?"), Message("assistant", "first"))
    sample = Sample("f.json#0", "f.json", turns, ("videos/slow.mp4", "videos/fast.mp4"))
    item = Item(sample.id, Prediction("", "first", turns[:1], sample.videos), sample)
    with ChatServer() as server:
        answers, faults = run(model_of(server), [item], other, tmp_path / "out")
        assert not answers and "its clips have different rates" in faults[item.id] and not server.seen
        nominal = model_of(server, inputs=replace(INPUTS, seconds_per_grid="nominal"))
        answers, faults = run(nominal, [item], other, tmp_path / "nominal")
        assert len(answers) == 1 and not faults


def test_a_run_that_stops_goes_on_where_it_was(dataset, items, tmp_path):
    with ChatServer() as server:
        model = model_of(server)
        journal, faults = Journal(tmp_path, model.recipe()), {}
        journal.begin()
        running = answer_remotely(model, items, dataset, tmp_path, journal, faults)
        for _ in range(7):
            next(running)
        running.close()
        assert len(Journal(tmp_path, model.recipe()).answers) >= 7
        answers, faults = run(model, items, dataset, tmp_path)
        assert len(answers) == len(items) and not faults
        # What was in flight when it stopped may have been sent twice, no more.
        assert len(items) <= len(server.seen) <= len(items) + model.endpoint.concurrency
        before = len(server.seen)
        assert run(model, items[:5], dataset, tmp_path)[0] and len(server.seen) == before


def test_kept_replies_need_neither_server_nor_clip(dataset, items, tmp_path):
    """As after a kill: the journal has nothing yet, the cache of replies has all."""
    with ChatServer() as server:
        model = model_of(server)
        first, _ = run(model, items, dataset, tmp_path)
    for part in (tmp_path / "answers").iterdir():
        part.unlink()
    assert run(model, items, tmp_path / "nowhere", tmp_path) == (first, {})


def test_a_server_that_is_down_stops_the_run(dataset, items, tmp_path):
    def plan(seen):
        return Do(status=503) if len(server.seen) > 5 else Do()

    with ChatServer(plan) as server:
        model = model_of(server)
        model = replace(model, endpoint=replace(model.endpoint, concurrency=1, max_failures_in_a_row=3))
        with pytest.raises(EndpointDown, match="3 requests in a row failed"):
            run(model, items, dataset, tmp_path)
    assert len(Journal(tmp_path, model.recipe()).answers) == 5


def test_another_served_model_is_another_recipe(dataset, items, tmp_path):
    with ChatServer() as server, ChatServer() as moved:
        run(model_of(server), items[:1], dataset, tmp_path)
        end = model_of(server).endpoint
        for change in (dict(endpoint=replace(end, model="b")), dict(encoding="jpeg"), dict(max_new_tokens=11)):
            with pytest.raises(JournalError, match="another recipe"):
                run(model_of(server, **change), items[:1], dataset, tmp_path)
        run(model_of(moved), items[:1], dataset, tmp_path)  # the same model at another place
        assert len(server.seen) == 1 and not moved.seen
    assert json.loads((tmp_path / "recipe.json").read_text())["model"] == {"served": "videmo"}


@pytest.mark.parametrize("change", [dict(form="film"), dict(encoding="gif"), dict(max_new_tokens=0)])
def test_settings_that_make_no_sense(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        RemoteModel(Endpoint("http://host/v1", "videmo"), **change)


def test_the_paper_frames_are_the_default():
    model = RemoteModel(Endpoint("http://host/v1", "videmo"))
    assert model.inputs == InputSpec(FrameSpec()) and model.max_new_tokens == 2048
