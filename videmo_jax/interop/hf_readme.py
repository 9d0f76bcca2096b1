"""README.md of an exported model: how to run it, and what to mind."""

from string import Template
from textwrap import indent

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import QWEN_SPECIAL_TOKENS, Tokenizer

SERVED_LENGTH = 8192  # tokens of a prompt and its answer that memory is set aside for

_TEMPLATE = Template("""\
---
library_name: transformers
pipeline_tag: video-text-to-text
tags: [video, emotion, qwen2_5_vl]
---

# VidEmo, exported from VidEmo-JAX

A Qwen2.5-VL model with $dtype weights. It answers questions about the faces in a video. `MODEL` below is this
directory.

## What a video is turned into

| | |
|---|---|
| frames | $rate per second, at least $min_frames, at most $max_frames, evenly spread with the first and the last |
| pixels of a frame | $min_pixels to $max_pixels, sides multiples of $factor; small clips are enlarged |
| seconds from one pair of frames to the next | $seconds |

Other limits mean inputs that the model was not trained on. `qwen-vl-utils` with **decord** as its reader samples frames
as training did; the sampling inside transformers and vLLM takes other frames. decord believes the rate that a file
claims, as training does where the frames' times agree with it; torchcodec, which `qwen-vl-utils` prefers where it is
installed, measures the rate, and tells some clips another one. Where a claim is false (a browser's recording, a varying
rate), where a file asks to be turned or mirrored, or has an edit list, decord gives other frames than training saw, or
none; write such a file anew first: `ffmpeg -i clip.webm -r 30 clip.mp4`.

## Text that looks like control tokens

In training the text of users was text, also where it held `<|im_end|>`, `<|video_pad|>` or another of Qwen's control
tokens. transformers and servers make tokens of it: it can end the user's turn or pass for a video. There is no way to
escape it; refuse such text before it is sent, as the code here does, and `evaluate.py --answers-url` of VidEmo-JAX.

## transformers

```
pip install "transformers>=4.57" accelerate torchvision "qwen-vl-utils[decord]"
```

(decord has packages for x86-64 alone, for Linux and Windows; elsewhere install `torchcodec` and leave out the line that
names the reader.)

```python
import os
import re
import sys

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"
sys.path.append("MODEL")

import transformers
from qwen_vl_utils import process_vision_info
from trained_positions import use_trained_positions
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

model = Qwen2_5_VLForConditionalGeneration.from_pretrained("MODEL", dtype="$dtype", device_map="auto")
use_trained_positions(model)  # transformers computes others: see below
processor = AutoProcessor.from_pretrained("MODEL")

$sampling
if transformers.__version__.startswith("4."):
    timing = {"fps": sampled}
else:
    timing = {"video_metadata": [{"fps": fps, "total_num_frames": len(f)} for fps, f in zip(sampled, frames)]}
inputs = processor(
    text=[text], videos=list(frames), do_sample_frames=False, do_resize=False, return_tensors="pt", **timing
).to(model.device)
output = model.generate(**inputs, max_new_tokens=2048)
print(processor.batch_decode(output[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0])
```
$hidden
## vLLM (GPU)

Offline, with the frames of training:

```python
import os
import re

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"

from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor
from vllm import LLM, SamplingParams


def main():
    llm = LLM("MODEL", dtype="$dtype", limit_mm_per_prompt={"video": 1}, max_model_len=$length)
    processor = AutoProcessor.from_pretrained("MODEL")
$indented
    metadata = {
        "fps": sampled[0], "total_num_frames": len(frames[0]), "frames_indices": list(range(len(frames[0]))),
        "duration": len(frames[0]) / sampled[0], "video_backend": "qwen-vl-utils", "do_sample_frames": False,
    }
    prompt = {"prompt": text, "multi_modal_data": {"video": [(frames[0].numpy(), metadata)]}}
    print(llm.generate(prompt, SamplingParams(temperature=0, max_tokens=2048))[0].outputs[0].text)


if __name__ == "__main__":  # vLLM's processes import this file again
    main()
```

As a server, which samples frames itself (at most $max_frames, $rate per second; for clips under $shortest seconds
fewer than training had):

```
vllm serve MODEL --dtype $dtype --limit-mm-per-prompt '{"video": 1}' --max-model-len $length \\
  --media-io-kwargs '{"video": {"num_frames": $max_frames, "fps": $rate}}'
```

As a server for `evaluate.py --answers-url`, which sends the frames of training, and with each request how they are to
be read. Since 0.31 vLLM refuses all of these unless it is started with `--trust-request-mm-kwargs`, which it advises
only where clients are trusted: let nobody else reach that server.

```
vllm serve MODEL --dtype $dtype --limit-mm-per-prompt '{"video": 1}' --max-model-len $length \\
  --host 127.0.0.1 --trust-request-mm-kwargs
```

## Position ids

The temporal id of a pair of frames is floor(its number x seconds between pairs x 2), and text after a video goes on at
the largest id so far + 1: that is how this model was trained. Without `trained_positions.py` (this directory; it needs
nothing of VidEmo-JAX) answers are silently wrong for some clips:

- **transformers 4.57** cuts the seconds between pairs to a whole number first: wrong wherever they are no whole
  number (1.6 becomes 1), right for whole ones.
- **transformers 5** (seen in 5.23 and 5.24) has the product right, but starts the text after a video at start +
  max(height, width) of the grid: wrong where the video lasts longer, in temporal ids, than the grid is high and wide.
  Without `video_metadata` it takes 24 frames per second for granted.
- **vLLM 0.32** computes both as trained.

`use_trained_positions(model)` mends `model(**inputs)` and `model.generate(**inputs)` in both lines. To see the ids, or
to pass them yourself, `trained_positions(model.config, inputs["input_ids"], None, inputs["video_grid_thw"],
inputs["second_per_grid_ts"])` gives them: `model(**inputs, position_ids=...)` takes them in both lines,
`generate(**inputs, position_ids=...)` in 5 alone.
""")

_HIDDEN = Template("""
The tokenizer calls $tokens special: `skip_special_tokens=True` leaves them out of answers. To read them, pass False, in
vLLM to `SamplingParams`, and cut off the `<|im_end|>` at the end.
""")

# What both programs do with a question and a clip.
_SAMPLING = Template("""\
question = "What emotion does this person show?"
if re.search(r"<\\|\\w+\\|>", question):
    raise ValueError("the question holds control tokens, which training read as text: take them out")
video = {
    "type": "video", "video": "clip.mp4", "fps": $rate,
    "min_frames": $min_frames, "max_frames": $max_frames, "min_pixels": $min_pixels, "max_pixels": $max_pixels,
}
messages = [{"role": "user", "content": [video, {"type": "text", "text": question}]}]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
_, videos, _ = process_vision_info(messages, return_video_kwargs=True, return_video_metadata=True)
frames, metadata = zip(*videos)
$sampled
""")

_SAMPLED = 'sampled = [len(m["frames_indices"]) / m["total_num_frames"] * m["fps"] for m in metadata]'
_NOMINAL = "sampled = [{fps} for _ in frames]  # this model is told 1 second, whatever was really sampled"


def readme(inputs: InputSpec, dtype: str, tokenizer: Tokenizer, max_positions: int) -> str:
    """The text for one model.

    Args:
      inputs: how its clips become frames, and which time it is told.
      dtype: of most of its weights.
      tokenizer: its own.
      max_positions: tokens of its longest prompt and answer together.
    """
    spec = inputs.frames
    special = (token.content for token in tokenizer.added.values() if token.special)
    hidden = ", ".join(f"`{token}`" for token in special if token not in QWEN_SPECIAL_TOKENS)
    values = dict(
        hidden=_HIDDEN.substitute(tokens=hidden) if hidden else "",
        dtype=dtype,
        length=min(SERVED_LENGTH, max_positions),  # vLLM refuses more than the model has
        rate=f"{spec.rate:g}",
        min_frames=spec.min_frames,
        max_frames=spec.max_frames,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
        factor=spec.factor,
        shortest=f"{spec.min_frames / spec.rate:g}",
        seconds={"nominal": "always 1", "sampled": "as really sampled"}[inputs.seconds_per_grid]
        + f" (`{inputs.seconds_per_grid}`)",
        sampled=_SAMPLED if inputs.seconds_per_grid == "sampled" else _NOMINAL.format(fps=float(spec.temporal_patch)),
    )
    sampling = _SAMPLING.substitute(values).rstrip()
    return _TEMPLATE.substitute(values, sampling=sampling, indented=indent(sampling, "    "))
