"""A policy, and runs that begin with it."""

import jax
import pytest
from rich.console import Console

from tests.rl.runs import config_of, save_policy
from videmo_jax.rl import run


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Programs are compiled once for all runs of this module."""
    if jax.config.jax_compilation_cache_dir:  # kept by the developer
        yield
        return
    names = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    names["jax_persistent_cache_min_compile_time_secs"] = 0.3
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"), config_of(), 2)


@pytest.fixture(scope="module")
def trained(compiled, policy, synthetic):
    """Runs with options: (workdir, options) -> what it printed."""

    def train(workdir, **more):
        config = config_of(**{"init": str(policy), "data__root": str(synthetic)} | more)
        console = Console(record=True, width=1000, quiet=False, file=(workdir.parent / f"{workdir.name}.txt").open("w"))
        run.run(config, workdir, console)
        return console.export_text()

    return train


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "plain"
    trained(workdir)
    return workdir
