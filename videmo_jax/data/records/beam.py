"""Apache Beam as a runner of the jobs: the same shards from as many machines as a runner has (extra `beam`).

Workers need this package, the videos under the same path, and an output folder that all of them see: a bucket, or a
shared disk.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from videmo_jax.data.records.jobs import ClipJob, Finished, Report
from videmo_jax.data.records.schema import RecordError


@dataclass(frozen=True)
class BeamRunner:
    """Runs jobs in a pipeline of Beam.

    Attributes:
      runner: Beam's name of it, such as `DirectRunner`, `DataflowRunner` or `FlinkRunner`.
      options: of the pipeline, each as on a command line (`--project=...`).
    """

    runner: str = "DirectRunner"
    options: Sequence[str] = ()

    def __call__(self, jobs: Sequence[ClipJob], tell: Report) -> list[Finished]:
        """Runs what is not finished; results come back through the jobs' files of progress, as they do locally.

        Raises:
          RecordError: Beam is not installed, or a job left no result.
        """
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
        except ImportError as error:
            raise RecordError(f"Apache Beam cannot be imported ({error}); pip install 'videmo-jax[beam]'.") from None
        waiting = [job for job in jobs if job.finished() is None]
        tell("clips", len(jobs) - len(waiting), len(jobs))
        if waiting:
            options = PipelineOptions([f"--runner={self.runner}", *self.options])
            # What the launching script holds in its globals means nothing to a worker.
            options.view_as(SetupOptions).save_main_session = False
            with beam.Pipeline(options=options) as pipeline:
                _ = pipeline | beam.Create(waiting) | beam.Reshuffle() | beam.Map(run_job)
        found = [job.finished() for job in jobs]
        if lost := [job.path.name for job, finished in zip(jobs, found, strict=True) if finished is None]:
            raise RecordError(
                f"Beam ended, but {len(lost)} shards are not there, the first {lost[0]}: do its workers write to "
                f"{jobs[0].path.parent} of this machine? Name a bucket or a shared folder."
            )
        tell("clips", len(jobs), len(jobs))
        return [finished for finished in found if finished is not None]


def run_job(job: ClipJob) -> str:
    """Runs one job on a worker; gives the name of its shard."""
    return job(threading.Event()).shard.file
