"""A checkpoint trained on a miniature Emo-CFG, asked about what it learnt, here and in PyTorch after the export.

    python -m tests.benchmarks.real_clips --checkpoint runs/mini --data ../shared/emo_cfg_mini

The last line of stdout is one JSON object; all else goes to stderr. Three ways of answering the train files, float32:
launch/evaluate.py; transformers on the exported directory, a greedy loop over `forward` with our position ids; and
plain `generate`, which makes its own ids, where these are right. (transformers starts the text after a video at its
height or width, so they are wrong where time runs past both, PAPER.md section 7.)
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from tests.reference import transformers_inputs
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.data.source import ClipFolder
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import ClipCache
from videmo_jax.evaluation.answers.items import read_items
from videmo_jax.evaluation.answers.predictions import read_folder
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.positions import VisionGrid, vision_ids
from videmo_jax.sampling.policy import banned_ids, stop_ids
from videmo_jax.training.checkpoint import read_meta, read_tokenizer_files

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """The exported model in transformers, and what it needs to answer as ours does."""

    torch_model: Qwen2_5_VLForConditionalGeneration
    model: ModelConfig
    tokenizer: Tokenizer
    max_new_tokens: int

    def inputs(self, prompt: Prepared) -> dict[str, torch.Tensor]:
        """One prompt as `forward` takes it."""
        widest = max((slabs.shape[1] for slabs in prompt.patches), default=0)
        row = build_row([prompt], Budget(len(prompt.encoded.tokens), prompt.slabs, widest), self.model.vision)
        return transformers_inputs(stack_rows([row]), [prompt])

    def text(self, tokens: list[int]) -> str:
        """Tokens without the one that ends them, as text."""
        ended = tokens[-1] in stop_ids(self.tokenizer)
        return self.tokenizer.decode(tokens[: len(tokens) - ended])

    @torch.no_grad()
    def greedy(self, prompt: Prepared) -> tuple[list[int], list[float]]:
        """A greedy loop over `forward`: the tokens, and by how much each one's logit led the second's."""
        inputs, banned = self.inputs(prompt), list(banned_ids(self.tokenizer, self.model))
        position, tokens, leads = int(inputs["position_ids"].max()), [], []
        while len(tokens) < self.max_new_tokens and not set(tokens[-1:]) & set(stop_ids(self.tokenizer)):
            out = self.torch_model(**inputs, use_cache=True)
            logits = out.logits[0, -1]
            logits[banned] = -torch.inf
            first, second = logits.topk(2).values.tolist()
            position += 1
            leads.append(first - second)
            tokens.append(int(logits.argmax()))
            inputs = {
                "input_ids": torch.tensor([tokens[-1:]]),
                "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1),
                "position_ids": torch.full((3, 1, 1), position),
                "past_key_values": out.past_key_values,
            }
        return tokens, leads

    def lead_where_they_part(self, ours: str, tokens: list[int], leads: list[float]) -> float:
        """The lead of the first token that our text does not go on with: next to nothing where the two were level."""
        for count, lead in enumerate(leads, start=1):
            if not ours.startswith(self.text(tokens[:count]).rstrip("\ufffd")):  # half a character
                return lead
        return leads[-1]

    @torch.no_grad()
    def generate(self, prompt: Prepared) -> str:
        """`generate` with position ids of its own."""
        inputs = self.inputs(prompt)
        del inputs["position_ids"]
        grids = [segment for segment in prompt.encoded.segments if isinstance(segment, VisionGrid)]
        if grids:
            inputs["mm_token_type_ids"] = 2 * (inputs["input_ids"] == self.tokenizer.video_pad).int()
            inputs["second_per_grid_ts"] = torch.tensor([grid.seconds_per_grid for grid in grids])
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=list(stop_ids(self.tokenizer)),
            pad_token_id=self.tokenizer.endoftext,
            suppress_tokens=list(banned_ids(self.tokenizer, self.model)),
        )
        out = self.torch_model.generate(**inputs, generation_config=config)
        return self.text(out[0, inputs["input_ids"].shape[1] :].tolist())

    def covers_time(self, prompt: Prepared) -> bool:
        """Whether height or width of every video reaches as far as its time, so that `generate` is right."""
        vision = self.model.vision
        for grid in prompt.encoded.segments:
            if isinstance(grid, VisionGrid):
                time_, height, width = vision_ids(
                    grid, tokens_per_second=vision.tokens_per_second, merge=vision.merge
                ).max(axis=1)
                if time_ > max(height, width):
                    return False
        return True


def run(*arguments: str) -> float:
    """Runs a command of this project; seconds."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=sys.stderr, check=True)
    return round(time.perf_counter() - begin, 1)


def main() -> None:
    """Answers, exports, answers again, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    flags = parser.parse_args()
    checkpoint, data = flags.checkpoint.resolve(), flags.data.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        out, exported = Path(temporary) / "evaluation", Path(temporary) / "hf"
        asked = ["--data", f"{data}", "--split", flags.split, "--max-new-tokens", f"{flags.max_new_tokens}"]
        ours = ["launch/evaluate.py", "--checkpoint", f"{checkpoint}", "--out", f"{out}", "--dtype", "float32", *asked]
        result = {"split": flags.split, "evaluate_seconds": run(*ours)}
        scores = json.loads((out / "scores.json").read_text())
        result |= {"closed_choice": scores["closed_choice"], "overall": scores["overall"]}
        export = ["export", "--checkpoint", f"{checkpoint}", "--out", f"{exported}", "--dtype", "float32"]
        run("launch/convert.py", *export)
        torch_model = Qwen2_5_VLForConditionalGeneration.from_pretrained(exported, dtype=torch.float32).eval()
        result |= compare(torch_model, checkpoint, data, out, flags.split, flags.max_new_tokens)
    print(json.dumps(result, ensure_ascii=False))


def compare(
    torch_model: Qwen2_5_VLForConditionalGeneration,
    checkpoint: Path,
    data: Path,
    out: Path,
    split: str,
    max_new_tokens: int,
) -> dict:
    """Answers every item in transformers; what differs, with both texts."""
    meta, tokenizer = read_meta(checkpoint), Tokenizer.from_files(read_tokenizer_files(checkpoint))
    peer = Peer(torch_model, meta.model, tokenizer, max_new_tokens)
    preparer = Preparer(tokenizer, InputSpec.from_json(meta.inputs))
    videos = ClipFolder(data, preparer.spec.frames, ClipCache(2**29))
    predicted = read_folder(out)
    items = [item for item in read_items(data, split, "full", None) if item.sample]
    loop, plain, covered = [], [], 0
    for number, item in enumerate(items, start=1):
        prompt = preparer(item.sample, videos.clips(item.sample), answer=False)
        ours = predicted[item.name][item.index].response
        tokens, leads = peer.greedy(prompt)
        lead = peer.lead_where_they_part(ours, tokens, leads)
        if (theirs := peer.text(tokens)) != ours:
            loop.append({"id": item.id, "ours": ours, "theirs": theirs, "lead": lead})
        if peer.covers_time(prompt):
            covered += 1
            if (theirs := peer.generate(prompt)) != ours:
                plain.append({"id": item.id, "ours": ours, "theirs": theirs, "lead": lead})
        print(f"\r{number}/{len(items)}, {len(loop)} and {len(plain)} differ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "forward": {"items": len(items), "differing": len(loop), "texts": loop},
        "generate": {"items": covered, "differing": len(plain), "texts": plain},
    }


if __name__ == "__main__":
    main()
