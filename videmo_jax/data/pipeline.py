"""The stream of training batches: planned rows, decoded in threads by Grain, whose state resumes exactly."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from videmo_jax.data.inputs import Preparer
from videmo_jax.data.packing import RowPlan
from videmo_jax.data.rows import Batch, Budget, Prepared, build_row, misfit, stack_rows
from videmo_jax.data.sample import Sample
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.video import VideoError
from videmo_jax.model.config import VisionConfig
from videmo_jax.sharding.rules import batch_sharding


def training_batches(
    samples: Sequence[Sample],
    plan: RowPlan,
    preparer: Preparer,
    *,
    vision: VisionConfig,
    budget: Budget,
    batch: int,
    threads: int,
    skips: SkipLog,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator:
    """Batches of rows without end; its state is the number of the next row.

    Args:
      samples: what to train on.
      plan: which of them share a row.
      preparer: reads their clips.
      vision: of the model, for the shape of patches.
      budget: the shape of a row.
      batch: rows of a batch over all hosts, a multiple of `hosts`.
      threads: that decode and tokenise at the same time.
      skips: takes the samples that cannot be used; their rows go on without them.
      host, hosts: this process reads the host-th part of every batch.
    """
    share = batch // hosts
    row = partial(_row, samples=samples, preparer=preparer, vision=vision, budget=budget, skips=skips)
    stream = grain.MapDataset.source(_HostRows(plan, share, host, hosts)).map(row)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * share, threads))
    return iter(stream.to_iter_dataset(options).batch(share, drop_remainder=True, batch_fn=stack_rows))


@dataclass(frozen=True)
class _HostRows:
    """The rows that one host reads: its part of each batch, so that batches are the same for any number of hosts."""

    plan: RowPlan
    share: int  # rows of a batch that a host reads
    host: int
    hosts: int

    def __len__(self) -> int:
        return sys.maxsize  # there is always a next epoch

    def __getitem__(self, index: int) -> Int32[np.ndarray, "n"]:
        batch, inside = divmod(index, self.share)
        return self.plan[(batch * self.hosts + self.host) * self.share + inside]


def _row(
    numbers: Int32[np.ndarray, "n"],
    *,
    samples: Sequence[Sample],
    preparer: Preparer,
    vision: VisionConfig,
    budget: Budget,
    skips: SkipLog,
) -> Batch:
    """The samples of a row, decoded; those that cannot be used are left out, with a line in the log."""
    held: list[Prepared] = []
    free = budget
    for sample in (samples[number] for number in numbers):
        try:
            prepared = preparer(sample)
        except VideoError as error:
            skips.add(sample.id, str(error))
            continue
        if reason := misfit(prepared, free):
            skips.add(sample.id, f"its clips hold more than they declare, and its row is full: {reason}")
            continue
        held.append(prepared)
        free = Budget(free.tokens - len(prepared.encoded.tokens), free.slabs - prepared.slabs, free.patches)
    return build_row(held, budget, vision)


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """This host's rows as its share of the global batch, split over the mesh's batch axes."""
    hosts = jax.process_count()

    def place(array: jax.Array) -> jax.Array:
        sharding = batch_sharding(mesh, (array.shape[0] * hosts, *array.shape[1:]))
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(place, batch)
