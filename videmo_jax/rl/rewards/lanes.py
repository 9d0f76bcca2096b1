"""Where rewards are computed beside the devices: in a thread of this process, or in worker processes.

Either can be given up while it hangs and goes on with a fresh one: what somebody else wrote, a reward or a server, may
never come back. Workers are spawned, not forked, and import no JAX. `spawn` imports the main module again: a command
that starts workers imports JAX inside of its functions only.
"""

import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, Protocol


class Lane(Protocol):
    """Takes work and does it in order, at its own pace."""

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Starts the work as soon as there is room."""
        ...

    def replace(self) -> None:
        """Gives up all that was submitted; what comes next is done by somebody new."""
        ...

    def close(self) -> None:
        """Ends; what is not done by now is given up."""
        ...


class ThreadLane:
    """A thread, started when it is needed; one that hangs is left behind, and does not keep the process alive."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] | None = None

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        """As `Lane`."""
        if self._tasks is None:
            self._tasks = queue.SimpleQueue()
            Thread(target=_serve, args=(self._tasks,), name="rewards", daemon=True).start()
        future: Future[Any] = Future()
        self._tasks.put((future, work, args))
        return future

    def replace(self) -> None:
        """As `Lane`."""
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        while not tasks.empty():
            if task := tasks.get():
                task[0].cancel()
        tasks.put(None)

    close = replace


def _serve(tasks: queue.SimpleQueue) -> None:
    while task := tasks.get():
        future, work, args = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(*args))
        except BaseException as error:
            future.set_exception(error)


class ProcessLane:
    """Worker processes; those that die or hang are replaced."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        """As `Lane`."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, get_context("spawn"), initializer=_end_with_parent)
        try:
            return self._pool.submit(work, *args)
        except BrokenProcessPool:
            self.replace()
            return self.submit(work, *args)

    def replace(self) -> None:
        """As `Lane`; what runs is killed."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((pool._processes or {}).values())  # `kill_workers` is there from Python 3.14 on
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()

    close = replace  # nobody waits for what hangs when a run is to end


def _end_with_parent() -> None:
    """Ends this worker when its trainer is killed: nobody else would tell it to stop, and it would wait for ever."""

    def watch() -> None:
        wait([parent_process().sentinel])
        os._exit(1)

    Thread(target=watch, name="parent", daemon=True).start()
