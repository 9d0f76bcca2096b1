"""Emo-CFG as record shards: every clip decoded, sampled and resized once, however many samples ask about it.

schema (what a record holds) -> shards (one file) and decoder (a process that may be killed) -> prepare (all files);
reader opens the result.
"""

from videmo_jax.data.records.prepare import Settings, prepare
from videmo_jax.data.records.reader import RecordedSample, RecordSet, read_records
from videmo_jax.data.records.schema import RecordError

__all__ = ["RecordError", "RecordSet", "RecordedSample", "Settings", "prepare", "read_records"]
