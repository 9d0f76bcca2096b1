"""TPU slices by generation and shape: chips, hosts, and the names that Google Cloud and GKE give them.

Sources, read in 2026: https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p, .../v6e (shapes, chips a VM),
https://cloud.google.com/tpu/docs/runtimes (software versions), and
https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (labels of nodes, machine types).
"""

import math
import re
from dataclasses import dataclass

from videmo_jax.pods.arguments import PodError

CHIPS_A_HOST = 4  # of every slice of several hosts, in every generation here


@dataclass(frozen=True)
class Generation:
    """One generation of TPUs.

    Attributes:
      dims: axes of a topology, 2 or 3.
      cores: TensorCores a chip.
      counts_cores: whether accelerator types count cores; else they count chips.
      type_prefix: of accelerator types, such as `v5p-128`.
      runtime: software version of Cloud TPU VMs, with nothing but an operating system in it.
      gke: value of the node label cloud.google.com/gke-tpu-accelerator.
      machine: GKE's machine type of four chips.
      one_host: most chips that one host can hold.
      largest: chips of the largest slice.
    """

    dims: int
    cores: int
    counts_cores: bool
    type_prefix: str
    runtime: str
    gke: str
    machine: str
    one_host: int
    largest: int


GENERATIONS = {
    "v4": Generation(3, 2, True, "v4", "tpu-ubuntu2204-base", "tpu-v4-podslice", "ct4p-hightpu", 4, 4096),
    "v5e": Generation(2, 1, False, "v5litepod", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", "ct5lp-hightpu", 8, 256),
    "v5p": Generation(3, 2, True, "v5p", "v2-alpha-tpuv5", "tpu-v5p-slice", "ct5p-hightpu", 4, 6144),
    "v6e": Generation(2, 1, False, "v6e", "v2-alpha-tpuv6e", "tpu-v6e-slice", "ct6e-standard", 8, 256),
}

# All shapes that v5e and v6e have; of v4 and v5p those that an accelerator type stands for.
SHAPES = {
    2: ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)),
    3: (
        (2, 2, 1),
        (2, 2, 2),
        (2, 2, 4),
        (2, 4, 4),
        (4, 4, 4),
        (4, 4, 8),
        (4, 8, 8),
        (8, 8, 8),
        (8, 8, 16),
        (8, 16, 16),
    ),
}


@dataclass(frozen=True)
class Slice:
    """A slice: a generation (a key of GENERATIONS) and its shape in chips."""

    generation: str
    shape: tuple[int, ...]

    @property
    def spec(self) -> Generation:
        """What holds for the whole generation."""
        return GENERATIONS[self.generation]

    @property
    def topology(self) -> str:
        """The shape as GKE writes it, such as 4x4x4."""
        return "x".join(map(str, self.shape))

    @property
    def chips(self) -> int:
        """All chips."""
        return math.prod(self.shape)

    @property
    def chips_a_host(self) -> int:
        """Chips of each host (VM); a small slice is one host."""
        return self.chips if self.chips <= self.spec.one_host else CHIPS_A_HOST

    @property
    def hosts(self) -> int:
        """Hosts (VMs); one process of training runs on each."""
        return self.chips // self.chips_a_host

    @property
    def machine_type(self) -> str:
        """GKE's machine type of the hosts."""
        return f"{self.spec.machine}-{self.chips_a_host}t"

    @property
    def accelerator_type(self) -> str:
        """The name that Cloud TPU books it by, such as v5p-128 or v5litepod-256.

        Raises:
          PodError: the name of that size stands for another shape.
        """
        if self.shape not in SHAPES[self.spec.dims]:
            common = ", ".join("x".join(map(str, shape)) for shape in SHAPES[self.spec.dims])
            raise PodError(
                f"topology {self}: no accelerator type stands for this shape; there are {common}. GKE has more"
            )
        count = self.chips * self.spec.cores if self.spec.counts_cores else self.chips
        return f"{self.spec.type_prefix}-{count}"

    def __str__(self) -> str:
        return f"{self.generation}:{self.topology}"


def slice_of(name: str) -> Slice:
    """Reads `v5p:4x4x4`, as launch/compile.py takes it.

    Raises:
      PodError: there is no such generation or shape.
    """
    match = re.fullmatch(r"([a-z0-9]+):([0-9]+(?:x[0-9]+){1,2})", name, re.ASCII)
    if not match:
        raise PodError(f"topology {name!r}: write GENERATION:SHAPE, such as v5p:4x4x4 or v5e:16x16")
    if match[1] not in GENERATIONS:
        raise PodError(f"topology {name!r}: no generation {match[1]!r}; there are {', '.join(GENERATIONS)}")
    found = Slice(match[1], tuple(int(side) for side in match[2].split("x")))
    dims, largest = found.spec.dims, found.spec.largest
    if len(found.shape) != dims:
        raise PodError(f"topology {name!r}: {match[1]} has {dims} axes, such as {example(match[1])}")
    # Beyond a cube of 64 chips, whole cubes are joined; sides are given in ascending order.
    cubes = all(side % 4 == 0 for side in found.shape) and found.shape == tuple(sorted(found.shape))
    if found.shape not in SHAPES[dims] and not (dims == 3 and cubes and 0 < found.chips <= largest):
        shapes = ", ".join("x".join(map(str, shape)) for shape in SHAPES[dims])
        more = f", and multiples of 4 in ascending order up to {largest:,} chips" if dims == 3 else ""
        raise PodError(f"topology {name!r}: {match[1]} has {shapes}{more}")
    return found


def example(generation: str) -> str:
    """A topology of the generation that is a whole slice of several hosts."""
    return f"{generation}:{'4x4x4' if GENERATIONS[generation].dims == 3 else '4x4'}"
