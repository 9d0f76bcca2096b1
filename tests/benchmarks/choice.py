"""What the choice of the next token costs on a TPU beside the product that its logits come from, by the compiler's own
estimates; needs libtpu, and no TPU.

  python -m tests.benchmarks.choice          # 7B, 2 prompts with 8 answers each on a chip, in bfloat16

Printed are microseconds a token at the chip's clock, which cancels out in the share.
"""

import argparse
import re
import tempfile
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from videmo_jax.aot.program import DUMP, _text
from videmo_jax.model.config import PRESETS
from videmo_jax.sampling.draw import Decoding, draw_tokens

TOPOLOGIES = {"v5p": ("v5p:2x2x1", 1.75e9), "v6e": ("v6e:2x2", 1.75e9)}  # and cycles a second
DRAWS = {
    "rollout": Decoding(answers=8, temperature=0.9),
    "greedy": Decoding(answers=8),
}
PROMPTS = 2
ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')


def cycles(function, device, *arguments) -> int:
    """Of a program, without loops, as the compiler estimates them."""
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device)) for x in arguments]
    with tempfile.TemporaryDirectory() as folder:
        lowered = jax.jit(function).trace(*placed).lower(lowering_platforms=("tpu",))
        lowered.compile(compiler_options={"xla_dump_to": folder, **DUMP})
        return sum(map(int, ESTIMATE.findall(_text(folder, "after_codegen"))))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = PRESETS["7b"].text
    banned = tuple(range(text.vocab - 411, text.vocab))
    logits = jax.ShapeDtypeStruct((PROMPTS, 8, text.vocab), jnp.float32)
    hidden = jax.ShapeDtypeStruct((PROMPTS, 8, text.width), jnp.bfloat16)
    table = jax.ShapeDtypeStruct((text.width, text.vocab), jnp.bfloat16)
    seeds, slot = (jax.ShapeDtypeStruct((PROMPTS,), dtype) for dtype in (jnp.uint32, jnp.int32))
    numbers = jax.ShapeDtypeStruct((PROMPTS, 8), jnp.int32)
    product = partial(jnp.einsum, "rgd,dv->rgv", preferred_element_type=jnp.float32)
    print("chip | output product, us | choice | us | share")
    for chip, (topology, clock) in TOPOLOGIES.items():
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        whole = cycles(product, device, hidden, table)
        for name, decoding in DRAWS.items():
            draw = partial(draw_tokens, decoding=decoding, banned_ids=banned)
            choice = cycles(draw, device, logits, slot, numbers, seeds)
            print(f"{chip} | {whole / clock * 1e6:.0f} | {name} | {choice / clock * 1e6:.0f} | {choice / whole:.1%}")


if __name__ == "__main__":
    main()
