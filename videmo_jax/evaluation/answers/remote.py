"""Answers from an OpenAI-style endpoint that serves the exported model, such as vLLM, with the local model's prompts.

Frames are sampled and resized here, as for the local model, and sent without loss. vLLM takes ready frames as a
`video_url` of the form `data:video/jpeg;base64,FRAME,FRAME,...`, reads PNG there, too (it looks at the bytes), and
gives the video processor the rate that the request names; resizing and sampling are switched off. Since 0.31 it takes
such requests only when it is started with `--trust-request-mm-kwargs`.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from etils import epath
from PIL import Image

from videmo_jax.data.chat import DEFAULT_SYSTEM
from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.sample import VIDEO_TAG, Message, Sample
from videmo_jax.data.source import ClipFolder, SampleError
from videmo_jax.data.tokenizer import QWEN_SPECIAL_TOKENS
from videmo_jax.data.video import Clip, ClipCache
from videmo_jax.endpoints.cache import Reply, ReplyCache, cache_key
from videmo_jax.endpoints.client import Endpoint, EndpointError, Failure, Request, ask
from videmo_jax.evaluation.answers.answerer import Answer
from videmo_jax.evaluation.answers.batches import ahead
from videmo_jax.evaluation.answers.items import Item
from videmo_jax.evaluation.answers.journal import Journal
from videmo_jax.files.errors import UserError
from videmo_jax.files.paths import open_path

CACHE_BYTES = 256 * 1024**2  # of decoded clips
JOURNAL_BATCH = 64  # answers in a file of the journal; until then the cache of replies holds them
CONCURRENCY = 32  # requests in flight: each holds its frames, some megabytes
TIMEOUT = 1800.0  # seconds: long answers wait for each other on the server
TRUST_FLAG = "--trust-request-mm-kwargs"  # vLLM 0.31 and later name it where they refuse `_timing`
KEY_NAME = "VLLM_API_KEY"  # as vLLM's server reads it; the judge's key is not for the model's server

Form = Literal["video", "images"]
Encoding = Literal["png", "jpeg"]


def serving(url: str, model: str, concurrency: int = CONCURRENCY, timeout: float = TIMEOUT) -> Endpoint:
    """An endpoint that serves a model: few requests in flight, much time for each, and a key of its own.

    Raises:
      EndpointError: a value makes no sense.
    """
    return Endpoint(url, model, concurrency, timeout=timeout, key_name=KEY_NAME)


@dataclass(frozen=True)
class RemoteModel:
    """Who answers, and what is sent.

    Attributes:
      endpoint: serves the model (`serving`).
      inputs: how clips become frames and which time the model is told: those that it was trained with.
      max_new_tokens: of an answer, its end token included.
      form: `video` as vLLM takes it; `images` sends single pictures, for servers that know no video: another prompt
        than the local model's.
      encoding: of a frame; `png` loses nothing, `jpeg` is some ten times smaller.
      log_probs: whether the answers' log-probabilities are asked for.
    """

    endpoint: Endpoint
    inputs: InputSpec = field(default_factory=InputSpec)
    max_new_tokens: int = 2048
    form: Form = "video"
    encoding: Encoding = "png"
    log_probs: bool = True

    def __post_init__(self) -> None:
        for name, choices in (("form", get_args(Form)), ("encoding", get_args(Encoding))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")

    def recipe(self) -> dict[str, Any]:
        """Everything that an answer depends on, but its question; not where the endpoint is, which may move."""
        return {
            "model": {"served": self.endpoint.model},
            "inputs": self.inputs.to_json(),
            "system": DEFAULT_SYSTEM.content,
            "decoding": {"max_new_tokens": self.max_new_tokens, "temperature": 0},
            "frames": {"form": self.form, "encoding": self.encoding},
        }


def answer_remotely(
    model: RemoteModel,
    items: Sequence[Item],
    data: Path,
    out: epath.PathLike,
    journal: Journal,
    faults: dict[str, str],
    threads: int = 4,
) -> Iterator[int]:
    """Fills the journal, and `faults` with the items that have no answer; yields how many are done.

    Replies are kept in `OUT/replies` the moment they arrive, so that a kill loses none.

    Args:
      model: who answers.
      items: usable ones without an answer in the journal.
      data: the folder of Emo-CFG.
      out: the evaluation's folder.
      journal: of this recipe, begun.
      faults: reasons by item id.
      threads: that decode videos.

    Raises:
      EndpointError: the endpoint refuses the key, or frames with their rate, or is down; the journal holds what was
        answered.
      CacheError: replies cannot be read or written.
    """
    films = _Films(model, ClipFolder(data, model.inputs.frames, ClipCache(CACHE_BYTES)))
    by_key = {_key(model, item): item for item in items}
    answers: dict[str, Answer] = {}
    done = 0

    def prepare(item: Item) -> Request | str:
        key = _key(model, item)
        try:
            _require_plain(item.sample)
            if cache.get(key) is not None:
                return Request(item.id, key, (), {})  # answered already: its clip need not be decoded
            return films.request(item, key)
        except SampleError as error:
            return str(error)

    def usable() -> Iterator[Request]:
        nonlocal done
        for item, request in ahead(by_clip, prepare, threads):
            if isinstance(request, str):
                faults[item.id] = request
                done += 1
            else:
                yield request

    by_clip = sorted(items, key=lambda item: item.blank.videos)
    with ReplyCache(open_path(out) / "replies") as cache, closing(ask(model.endpoint, usable(), cache)) as outcomes:
        try:
            for outcome in outcomes:
                item = by_key[outcome.request.key]
                if isinstance(outcome.result, Failure):
                    if TRUST_FLAG in outcome.result.error:
                        raise EndpointError(
                            f"{model.endpoint.url}: this vLLM refuses frames that come with their rate. Start it with "
                            f"{TRUST_FLAG}, where nobody else reaches it, and give the same command again"
                        )
                    faults[item.id] = str(outcome.result)
                else:
                    answers[item.key] = _answer(outcome.result)
                done += 1
                if len(answers) >= JOURNAL_BATCH:
                    journal.add(answers)
                    answers = {}
                yield done
        finally:
            if answers:
                journal.add(answers)
    yield done


def _key(model: RemoteModel, item: Item) -> str:
    """Of an item's reply in the cache; known without decoding anything."""
    return cache_key(model.endpoint.url, model.endpoint.model, {"item": item.key, "recipe": model.recipe()})


def _require_plain(sample: Sample) -> None:
    """Refuses text that the local model reads as it stands, while a server's tokenizer makes control tokens of it.

    Nothing escapes them: whatever is put between their letters is read, too.

    Raises:
      SampleError: there is such text.
    """
    text = "\n".join(turn.content for turn in sample.prompt)
    if held := [token for token in QWEN_SPECIAL_TOKENS if token in text]:
        raise SampleError(
            f"its text holds {', '.join(held)}, which a server takes for control tokens; take it out, or answer here, "
            "without --answers-url"
        )


def _answer(reply: Reply) -> Answer:
    return Answer(reply.text, tuple(round(value, 6) for value in reply.log_probs or ()), reply.cut)


@dataclass(frozen=True)
class _Film:
    """A clip by the path of its video."""

    video: str
    clip: Clip = field(compare=False)


class _Films:
    """Makes requests; the encoded frames of the last clips are kept, because many questions ask about one."""

    def __init__(self, model: RemoteModel, videos: ClipFolder) -> None:
        self._model, self._videos = model, videos
        self._frames = lru_cache(maxsize=8)(self._encoded)

    def request(self, item: Item, key: str) -> Request:
        """What is sent for an item.

        Raises:
          SampleError: a clip cannot be used, or two clips of one question have different rates, which no request holds.
        """
        films = [
            _Film(video, clip) for video, clip in zip(item.sample.videos, self._videos.clips(item.sample), strict=True)
        ]
        settings = {"temperature": 0, "max_tokens": self._model.max_new_tokens}
        if self._model.log_probs:
            settings["logprobs"] = True
        if self._model.form == "video" and films:
            settings |= _timing(self._model.inputs, [film.clip for film in films])
        return Request(item.id, key, self._messages(item.sample, films), settings, blank=True)

    def _messages(self, sample: Sample, films: Sequence[_Film]) -> list[dict[str, Any]]:
        """The prompt's turns in the API's form, the clips where their tags stand."""
        turns = sample.prompt
        if not turns or turns[0].role != "system":
            turns = (DEFAULT_SYSTEM, *turns)
        clips = iter(films)
        return [{"role": turn.role, "content": self._content(turn, clips)} for turn in turns]

    def _content(self, turn: Message, clips: Iterator[_Film]) -> str | list[dict[str, Any]]:
        if turn.role != "user" or VIDEO_TAG not in turn.content:
            return turn.content
        parts: list[dict[str, Any]] = []
        for number, text in enumerate(turn.content.split(VIDEO_TAG)):
            if number:
                parts += self._clip(next(clips))
            if text:
                parts.append({"type": "text", "text": text})
        return parts

    def _clip(self, film: _Film) -> list[dict[str, Any]]:
        frames = self._frames(film)
        if self._model.form == "video":
            # The type says that frames follow, not how each is encoded.
            return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(frames)}"}}]
        kind = f"data:image/{self._model.encoding};base64,"
        return [{"type": "image_url", "image_url": {"url": f"{kind}{frame}"}} for frame in frames]

    def _encoded(self, film: _Film) -> tuple[str, ...]:
        """The frames in base64."""
        how: dict[str, Any] = {"format": "PNG", "compress_level": 1}
        if self._model.encoding == "jpeg":
            how = {"format": "JPEG", "quality": 95, "subsampling": 0}
        encoded = []
        for frame in film.clip.frames:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, **how)
            encoded.append(base64.b64encode(file.getvalue()).decode())
        return tuple(encoded)


def _timing(inputs: InputSpec, clips: Sequence[Clip]) -> Mapping[str, Any]:
    """Fields that make vLLM take the frames as they are, at their rate.

    Its video processor computes the seconds between slabs as frames of a slab / rate. Versions differ in where they
    look for the rate: `media_io_kwargs` (since 2026; what 0.32 follows) goes with the frames, `mm_processor_kwargs` to
    the processor.
    """
    slab = inputs.frames.temporal_patch
    rates = {slab / (clip.seconds_per_grid if inputs.seconds_per_grid == "sampled" else 1.0) for clip in clips}
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise SampleError(f"its clips have different rates ({shown} frames a second), and a request names one only")
    (rate,) = rates
    return {
        "mm_processor_kwargs": {"do_sample_frames": False, "do_resize": False, "fps": rate},
        "media_io_kwargs": {"video": {"fps": rate, "num_frames": -1}},
    }
