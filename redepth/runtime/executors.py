"""One function over many inputs: in this process, in several, or on a Ray cluster, with the same results.

``make`` builds a worker once per process (it loads the models). The worker is then called with one input
after the other. An input that fails is an outcome like any other. An input whose process dies is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redepth.runtime.cluster import Ray, gpu_share
from redepth.runtime.processes import Processes
from redepth.runtime.signals import received
from redepth.runtime.work import Done, Executor, Make, R, Resources, T, Worker, attempt, use_threads

__all__ = ["Done", "Executor", "Inline", "Make", "Resources", "Worker", "executor", "gpu_share"]


class Inline(Executor):
    """In this process, one after the other."""

    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes in the order of the inputs."""
        signals_before = received()
        use_threads(self.resources.threads)
        worker = make()
        for index, item in enumerate(inputs):
            if self._stopped:
                return
            done = attempt(worker, index, item)
            if received() > signals_before:
                # Also where a library has swallowed the KeyboardInterrupt.
                self._interrupted = True
                self.stop()
            yield done


def executor(resources: Resources) -> Executor:
    """Return the executor for these resources."""
    kinds: dict[str, type[Executor]] = {"inline": Inline, "processes": Processes, "ray": Ray}
    return kinds[resources.kind](resources)
