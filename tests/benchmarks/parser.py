"""How fast captions become trees, on one core.

    python -m tests.benchmarks.parser

The captions are those of tests/golden/affective; the last line of stdout is one JSON object.
"""

import json
import statistics
import time

from tests.affective.captions import examples
from videmo_jax.affective.parser import parse_caption


def main() -> None:
    """Measures and prints."""
    result = {}
    for name in ("emo_cfg_mini", "varied"):
        captions = [example.caption for example in examples(name)]
        parse_caption(captions[0])
        speeds = []
        for _ in range(5):
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < 1:
                for caption in captions:
                    parse_caption(caption)
                done += len(captions)
            speeds.append(done / (time.perf_counter() - start))
        words = statistics.mean(len(caption.split()) for caption in captions)
        result[name] = {"captions_per_s": round(max(speeds)), "words_per_caption": round(words, 1)}
        print(name, [round(speed) for speed in speeds])
    long = "Her brows are raised and she smiles at the man. " * 2000
    start = time.perf_counter()
    parse_caption(long)
    result["seconds_per_100_kB"] = round(time.perf_counter() - start, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
