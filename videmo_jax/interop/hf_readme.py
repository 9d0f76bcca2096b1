"""README.md of an exported model: how to run it, and what to mind."""

from string import Template

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import QWEN_SPECIAL_TOKENS, Tokenizer

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

Other limits mean inputs that the model was not trained on. `qwen-vl-utils` samples frames as training did; the
sampling inside transformers and vLLM takes other frames. All of them believe the rate that a file claims, where
training went by its time stamps: convert clips that claim a wrong one, such as a browser's recordings with 1000 frames
per second (`ffmpeg -i clip.webm -r 30 clip.mp4`).

## transformers (GPU)

```
pip install "transformers>=4.57" accelerate torchvision qwen-vl-utils
```

```python
import transformers
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

model = Qwen2_5_VLForConditionalGeneration.from_pretrained("MODEL", dtype="$dtype", device_map="cuda")
processor = AutoProcessor.from_pretrained("MODEL")

video = {
    "type": "video", "video": "clip.mp4", "fps": $rate,
    "min_frames": $min_frames, "max_frames": $max_frames, "min_pixels": $min_pixels, "max_pixels": $max_pixels,
}
messages = [{"role": "user", "content": [video, {"type": "text", "text": "What emotion does this person show?"}]}]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
_, videos, _ = process_vision_info(messages, return_video_kwargs=True, return_video_metadata=True)
frames, metadata = zip(*videos)
sampled = [len(m["frames_indices"]) / m["total_num_frames"] * m["fps"] for m in metadata]
$nominal
if transformers.__version__.startswith("4."):
    timing = {"fps": sampled}
else:
    timing = {"video_metadata": [{"fps": fps, "total_num_frames": len(f)} for fps, f in zip(sampled, frames)]}
inputs = processor(
    text=[text], videos=list(frames), do_sample_frames=False, do_resize=False, return_tensors="pt", **timing
).to("cuda")
output = model.generate(**inputs, max_new_tokens=2048)
print(processor.batch_decode(output[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0])
```
$hidden
## vLLM (GPU)

Offline, with the frames of training:

```python
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor
from vllm import LLM, SamplingParams

llm = LLM("MODEL", limit_mm_per_prompt={"video": 1}, max_model_len=8192)
processor = AutoProcessor.from_pretrained("MODEL")
# `messages`, `text`, `frames` and `sampled` as above
metadata = {
    "fps": sampled[0], "total_num_frames": len(frames[0]), "frames_indices": list(range(len(frames[0]))),
    "duration": len(frames[0]) / sampled[0], "video_backend": "qwen-vl-utils", "do_sample_frames": False,
}
prompt = {"prompt": text, "multi_modal_data": {"video": [(frames[0].numpy(), metadata)]}}
print(llm.generate(prompt, SamplingParams(temperature=0, max_tokens=2048))[0].outputs[0].text)
```

As a server, which samples frames itself (at most $max_frames, $rate per second; for clips under $shortest seconds
fewer than training had):

```
vllm serve MODEL --limit-mm-per-prompt '{"video": 1}' --max-model-len 8192 \\
  --media-io-kwargs '{"video": {"num_frames": $max_frames, "fps": $rate}}'
```

## Known faults of position ids, by version

The temporal id of a pair of frames is floor(its number x seconds between pairs x 2), and text after a video goes on at
the largest id so far + 1: that is how this model was trained.

- **transformers 4.57.1** cuts the seconds between pairs to a whole number first: wrong wherever they are no whole
  number (1.6 becomes 1), right for whole ones.
- **transformers 5.23.0** has the product right, but starts the text after a video at start + max(height, width) of the
  grid: wrong where the video lasts longer, in temporal ids, than the grid is high and wide. Without
  `video_metadata` it takes 24 frames per second for granted.
- **vLLM 0.33.0** computes both as trained, by its source. It leans on transformers for everything before that.

Where it matters, give the model `position_ids` of your own.
""")

_HIDDEN = Template("""
The tokenizer calls $tokens special: `skip_special_tokens=True` leaves them out of answers. To read them, pass False, in
vLLM to `SamplingParams`, and cut off the `<|im_end|>` at the end.
""")

_NOMINAL = "sampled = [$fps for _ in sampled]  # this model is told 1 second, whatever was really sampled"


def readme(inputs: InputSpec, dtype: str, tokenizer: Tokenizer) -> str:
    """The text for one model.

    Args:
      inputs: how its clips become frames, and which time it is told.
      dtype: of most of its weights.
      tokenizer: its own.
    """
    spec, nominal = inputs.frames, inputs.seconds_per_grid == "nominal"
    special = (token.content for token in tokenizer.added.values() if token.special)
    hidden = ", ".join(f"`{token}`" for token in special if token not in QWEN_SPECIAL_TOKENS)
    text = _TEMPLATE.substitute(
        hidden=_HIDDEN.substitute(tokens=hidden) if hidden else "",
        dtype=dtype,
        rate=f"{spec.rate:g}",
        min_frames=spec.min_frames,
        max_frames=spec.max_frames,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
        factor=spec.factor,
        shortest=f"{spec.min_frames / spec.rate:g}",
        seconds=("always 1" if nominal else "as really sampled") + f" (`{inputs.seconds_per_grid}`)",
        nominal=Template(_NOMINAL).substitute(fps=float(spec.temporal_patch)) if nominal else "",
    )
    return text.replace("\n\nif transformers", "\nif transformers")
