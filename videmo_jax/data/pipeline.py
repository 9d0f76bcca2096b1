"""The stream of training batches: Grain shuffles, decodes in threads, and its state resumes exactly."""

from collections.abc import Sequence
from functools import partial

import grain
import jax
from jax.sharding import Mesh

from videmo_jax.data.inputs import Preparer
from videmo_jax.data.rows import Batch, Budget, build_row, misfit, stack_rows
from videmo_jax.data.sample import Sample
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.video import VideoError
from videmo_jax.model.config import VisionConfig
from videmo_jax.sharding.rules import batch_sharding


def training_batches(
    samples: Sequence[Sample],
    preparer: Preparer,
    *,
    vision: VisionConfig,
    budget: Budget,
    batch: int,
    seed: int,
    threads: int,
    skips: SkipLog,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator:
    """Batches of rows without end; each epoch has its own order, a function of the seed alone.

    Args:
      samples: what to train on; every one comes once an epoch.
      preparer: reads their clips.
      vision: of the model, for the shape of patches.
      budget: the shape of a row.
      batch: rows of this host's batch.
      seed: of the order.
      threads: that decode and tokenise at the same time.
      skips: takes the samples that cannot be used; the stream goes on without them.
      host, hosts: this process takes every hosts-th sample.
    """
    row = partial(_row, preparer=preparer, vision=vision, budget=budget, skips=skips)
    stream = grain.MapDataset.source(samples).seed(seed).shuffle().repeat()[host::hosts].map(row)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * batch, threads))
    # A row that is None is left out here; the iterator's state counts it.
    return iter(stream.to_iter_dataset(options).batch(batch, drop_remainder=True, batch_fn=stack_rows))


def _row(sample: Sample, *, preparer: Preparer, vision: VisionConfig, budget: Budget, skips: SkipLog) -> Batch | None:
    """One sample as a row, or None and a line in the log."""
    try:
        prepared = preparer(sample)
    except VideoError as error:
        skips.add(sample.id, str(error))
        return None
    if reason := misfit(prepared, budget):
        skips.add(sample.id, reason)
        return None
    return build_row([prepared], budget, vision)


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """This host's rows as its share of the global batch, split over the mesh's batch axes."""
    hosts = jax.process_count()

    def place(array: jax.Array) -> jax.Array:
        sharding = batch_sharding(mesh, (array.shape[0] * hosts, *array.shape[1:]))
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(place, batch)
