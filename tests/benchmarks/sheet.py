"""A sheet of rendered clips, each a row over time with a question and its answer.

    python -m tests.benchmarks.sheet --out docs/synthetic_faces.jpg

Every row is the scene of the same number of its kind, so that the sheet shows what comes, not the best.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videmo_jax.data.synthetic import draw_scene, render
from videmo_jax.data.synthetic.questions import records
from videmo_jax.data.synthetic.scene import KINDS

# Kind -> which of the records that ask about the scene.
ROWS = {
    "celebv_hq": 1,
    "mead_pose": 0,
    "celebv_text": 1,
    "mead_pair": 0,
    "affwild2": 0,
    "dfew": 0,
    "meld": 0,
    "perr": 0,
    "mafw_single": 0,
    "ravdess": 0,
    "cas": 0,
    "mosi": 0,
}
SIZE, FRAMES, TEXT, GAP = 112, 4, 200, 6


def row(seed: int, kind: str, turn: int, which: int) -> Image.Image:
    """Frames of a clip side by side, and beside them what is asked and answered."""
    scene = draw_scene(seed, "train", turn * len(KINDS) + list(KINDS).index(kind))
    record = records(seed, scene)[which]
    frames = np.concatenate(list(render(seed, scene, SIZE, FRAMES)), axis=1)
    image = Image.new("RGB", (frames.shape[1] + TEXT, SIZE + GAP), "white")
    image.paste(Image.fromarray(frames), (0, 0))
    question = record.question.replace("<video>.", "").replace("<video>", "").split("\n")[0].split(" Answer with")[0]
    draw, y = ImageDraw.Draw(image), 4
    for text, colour, most in ((question, (110, 110, 110), 4), (record.answer.replace(",", ", "), (0, 0, 0), 4)):
        for line in textwrap.wrap(text, 29, max_lines=most, placeholder=" ..."):
            draw.text((frames.shape[1] + 8, y), line, colour, ImageFont.load_default(12))
            y += 14
        y += 4
    return image


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turn", type=int, default=5, help="which scene of each kind (default 5)")
    flags = parser.parse_args()
    rows = [row(flags.seed, kind, flags.turn, which) for kind, which in ROWS.items()]
    width, height = rows[0].size
    sheet = Image.new("RGB", (2 * width, height * ((len(rows) + 1) // 2)), "white")
    for number, image in enumerate(rows):
        sheet.paste(image, (number % 2 * width, number // 2 * height))
    sheet.save(flags.out, quality=90)


if __name__ == "__main__":
    main()
