"""What leaves a run as printed: the README's transformers code, word for word, and the file of position ids."""

import importlib.util
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.conftest import golden
from tests.interop.hf_directories import edit_json, write_hf
from tests.pytorch import torch
from tests.reference import pixel_values
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec, read_clip
from videmo_jax.interop import trained_positions as exported_file
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.interop.trained_positions import trained_positions, use_trained_positions
from videmo_jax.model.positions import VisionGrid, mrope_ids

SPEC = FrameSpec(max_frames=8, min_pixels=56 * 56, max_pixels=56 * 56)
QUESTION = "What emotion does this person show?"
ANSWER = 12  # tokens; then the model ends
CONFIG = SimpleNamespace(
    image_token_id=8, video_token_id=9, vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=2)
)


def write_clip(path: Path, frames: int = 90, rate: int = 7) -> Path:
    """Some 13 seconds, so that 8 frames are 3.2 seconds a slab: no whole number, and longer than the grid is wide."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(frames):
            picture = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def greedy(model, inputs, positions, count):
    """The likeliest tokens, each by a pass over all before it; text goes on at the largest id + 1."""
    ids = inputs.pop("input_ids")
    for _ in range(count):
        with torch.no_grad():
            logits = model(input_ids=ids, position_ids=positions, use_cache=False, **inputs).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        positions = torch.cat([positions, positions.amax((0, 2), keepdim=True).expand(3, -1, 1) + 1], 2)
    return ids[0, -count:].tolist()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """A folder with MODEL, clip.mp4 and the printed code, and the answer that it must print.

    The answer is from our frames, tokens and position ids. Any other token ends it, so that an error shows soon.
    """
    folder = tmp_path_factory.mktemp("printed")
    write_hf(folder / "hf")
    import_hf(folder / "hf", folder / "ckpt")
    edit_json(folder / "ckpt/checkpoints/0/meta/metadata", inputs=InputSpec(SPEC).to_json())
    export_hf(folder / "ckpt", folder / "MODEL")
    video, tokenizer = write_clip(folder / "clip.mp4"), Tokenizer.embedded()
    sample = Sample("a#0", "a", (Message("user", f"<video>{QUESTION}"), Message("assistant", "")), ("clip.mp4",))
    prompt = Preparer(tokenizer, InputSpec(SPEC))(sample, (read_clip(video, SPEC),), answer=False)
    (grid,) = (segment for segment in prompt.encoded.segments if isinstance(segment, VisionGrid))
    assert grid.seconds_per_grid == pytest.approx(90 / 7 / 4) and grid.time > 1
    (patches,) = prompt.patches
    inputs = {
        "input_ids": torch.tensor(prompt.encoded.tokens, dtype=torch.long)[None],
        "pixel_values_videos": pixel_values(patches.reshape(-1, patches.shape[-1])),
        "video_grid_thw": torch.tensor([[grid.time, grid.height, grid.width]]),
    }
    positions = torch.tensor(mrope_ids(prompt.encoded.segments, tokens_per_second=2), dtype=torch.long)[:, None]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "MODEL", dtype=torch.float32)
    answer = greedy(model, inputs, positions, ANSWER)
    answer = answer[: 1 + max(n for n, token in enumerate(answer) if token not in answer[:n])]
    assert len(answer) > 5
    ends = sorted({*range(model.config.text_config.vocab_size)}.difference(answer[:-1]))
    edit_json(folder / "MODEL" / "generation_config.json", eos_token_id=ends)
    (code, *_) = re.findall(r"```python\n(.*?)```", (folder / "MODEL/README.md").read_text(), re.DOTALL)
    (folder / "printed.py").write_text(code)
    return folder, tokenizer.decode(answer)


def run(python, folder):
    done = subprocess.run([python, "printed.py"], cwd=folder, capture_output=True, text=True, timeout=500, env=ENV)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


ENV = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}


def test_the_printed_code_gives_our_answer(printed):
    missing = [
        name
        for name in ("accelerate", "torchvision", "qwen_vl_utils", "decord")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        pytest.skip(f"the README's pip line was not followed here: no {', '.join(missing)}")
    folder, answer = printed
    assert run(sys.executable, folder) == answer


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["transformers>=5", pytest.param("transformers>=4.57,<5", marks=pytest.mark.environments)]
)
def test_the_printed_code_gives_our_answer_after_the_printed_pip_line(printed, line, tmp_path):
    """In an environment of its own, which sees this one's packages, so that PyTorch is not fetched again."""
    folder, answer = printed
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "this.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (tmp_path / "constraints.txt").write_text(f"torch=={metadata.version('torch')}\n{line}\n")
    (command,) = re.findall(r"^pip install .*$", (folder / "MODEL/README.md").read_text(), re.MULTILINE)
    installed = subprocess.run(
        f"{python} -m {command} --quiet --constraint {tmp_path}/constraints.txt",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PIP_NO_COMPILE": "1"},  # most of it is never imported
    )
    if installed.returncode:
        pytest.skip(f"the environment cannot be made here: {installed.stderr[-500:]}")
    if torch.version.cuda is None:  # torchvision's files are built for CUDA; declarations of what it lacks here go
        declared = site / "torchvision/_meta_registrations.py"
        declared.write_text(re.sub(r'@torch.library.register_fake\("torchvision.*\)', "", declared.read_text()))
    assert run(python, folder) == answer


def tokens_of(segments):
    """A row of the golden file's segments as trained_positions takes it: 1 is text, 8 an image, 9 a video."""
    ids, grids, seconds = [], {8: [], 9: []}, []
    for segment in segments:
        if isinstance(segment, int):
            ids += [1] * segment
        else:
            time, height, width, step = (*segment, None)[:4]
            grids[9 if step else 8].append([time, height, width])
            ids += [9 if step else 8] * (time * height * width // 4)
            seconds += [step] if step else []
    images, videos, seconds = (torch.tensor(each) if each else None for each in (grids[8], grids[9], seconds))
    return torch.tensor([ids]), images, videos, seconds


@pytest.mark.parametrize("name", golden("mrope")["cases"])
def test_positions_are_the_golden_ones(name):
    case = golden("mrope")["cases"][name]
    ids = trained_positions(CONFIG, *tokens_of(case["segments"]))
    assert ids[:, 0].tolist() == [case["temporal"], case["height"], case["width"]]


def test_rows_are_padded_on_either_side_and_share_the_grids():
    rows = [[2, [2, 4, 4, 1.6], 1], [[3, 4, 8, 0.7], 4]]
    ids, _, videos, seconds = zip(*map(tokens_of, rows), strict=True)
    longest = max(row.shape[1] for row in ids)
    gaps = [longest - row.shape[1] for row in ids]
    padded = torch.stack([torch.nn.functional.pad(row[0], (gap, 2)) for gap, row in zip(gaps, ids, strict=True)])
    mask = (padded > 0).long()
    got = trained_positions(CONFIG, padded, None, torch.cat(videos), torch.cat(seconds), mask)
    for place, (row, one) in enumerate(zip(rows, ids, strict=True)):
        segments = [each if isinstance(each, int) else VisionGrid(*each) for each in row]
        assert np.array_equal(got[:, place, gaps[place] : -2], mrope_ids(segments, tokens_per_second=2)), one
    assert not (got * (1 - mask)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second_per_grid_ts": None}, "second_per_grid_ts is of 0 videos, but there are 1"),
        ({"video_grid_thw": torch.tensor([[2, 4, 8]])}, "does not fit the tokens from 1 on"),
        ({"input_ids": torch.ones(1, 5, dtype=torch.long)}, "1 images or videos have no tokens"),
        ({"input_ids": torch.tensor([[1, *[9] * 8, 1, *[9] * 8]])}, "more images or videos in the text than grids"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    ids, images, videos, seconds = tokens_of([1, [2, 4, 4, 0.5], 2])
    given = {"input_ids": ids, "image_grid_thw": images, "video_grid_thw": videos, "second_per_grid_ts": seconds}
    with pytest.raises(ValueError, match=message):
        trained_positions(CONFIG, **given | change)


def test_generation_in_a_padded_batch_goes_on_at_the_largest_id(printed):
    """Rows of other lengths, whose answers must be those that each gives alone."""
    folder, _ = printed
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "MODEL", dtype=torch.float32)
    video, start, end = (model.config.video_token_id, *Tokenizer.embedded().encode("ab")[:2])
    generator = torch.Generator().manual_seed(0)
    rows = [[start, *[video] * 8, start, end], [start, start, end, *[video] * 12, end, start, end, start]]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    grids, seconds = torch.tensor([[8, 2, 2], [3, 4, 4]]), torch.tensor([1.6, 2.75])
    pixels = torch.randn(32 + 48, 1176, generator=generator)
    settings = {"max_new_tokens": 6, "eos_token_id": 2059, "do_sample": False}

    def answers(ids, mask, grids, seconds, pixels):
        kinds = {"mm_token_type_ids": 2 * (ids == video).int()}
        return model.generate(
            input_ids=ids,
            attention_mask=mask,
            video_grid_thw=grids,
            second_per_grid_ts=seconds,
            pixel_values_videos=pixels,
            **kinds,
            **settings,
        )[:, ids.shape[1] :].tolist()

    use_trained_positions(model)
    together = answers(ids, mask, grids, seconds, pixels)
    for place, (row, own) in enumerate(zip(rows, (pixels[:32], pixels[32:]), strict=True)):
        given = {"video_grid_thw": grids[place : place + 1], "pixel_values_videos": own}
        positions = trained_positions(
            model.config, torch.tensor([row]), None, given["video_grid_thw"], seconds[[place]]
        )
        expected = greedy(model, {"input_ids": torch.tensor([row]), **given}, positions, 6)
        assert together[place] == expected
    text = torch.tensor([[start, end, start, end]])  # without a video nothing is changed, whatever was asked before
    plain = model.generate(input_ids=text, **settings)[0, 4:].tolist()
    assert plain == greedy(model, {"input_ids": text}, torch.arange(4).expand(3, 1, 4), 6)


def test_the_file_lies_in_the_export_and_imports_nothing_of_ours(printed):
    folder, _ = printed
    text = (folder / "MODEL" / "trained_positions.py").read_text()
    assert text == Path(exported_file.__file__).read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) == {"inspect", "typing", "numpy"}
