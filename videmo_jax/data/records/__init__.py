"""Emo-CFG as record shards: every clip decoded, sampled and resized once, however many samples ask about it.

schema (what a record holds) -> shards (one file) and decoder (a process that may be killed) -> jobs (shards of clips),
index (lengths of all samples) -> reader (opens the result) and writing (samples, manifest) -> prepare (all of it, from
what survey reads). beam runs the jobs elsewhere; TensorFlow Datasets' own readers open the result.
"""

from videmo_jax.data.records.index import SampleLengths, tokenizer_id
from videmo_jax.data.records.prepare import prepare
from videmo_jax.data.records.reader import RecordedSample, RecordSet, read_records
from videmo_jax.data.records.schema import RecordError
from videmo_jax.data.records.settings import Settings

__all__ = [
    "RecordError",
    "RecordSet",
    "RecordedSample",
    "SampleLengths",
    "Settings",
    "prepare",
    "read_records",
    "tokenizer_id",
]
