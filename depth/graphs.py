"""A network on a CUDA device as recorded graphs: a picture costs one launch in place of a thousand.

The device runs a kernel of a depth network in a few microseconds, about what Python needs to ask for the next
one. A CUDA graph asks for all of them at once; it computes the same, on inputs of one size.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

import torch

from depth.devices import is_out_of_memory

LIMIT = 32  # sizes kept; they compute in the same memory, one at a time

Network = Callable[[torch.Tensor], torch.Tensor]
_recording = threading.Lock()  # torch records all graphs on one stream


class Graphs:
    """The network, recorded anew for each size of batch that comes a second time.

    A size that cannot be recorded runs as the network does. Threads take turns. Call it in inference mode.
    """

    def __init__(self, network: Network):
        self._network, self._lock = network, threading.Lock()
        self._sizes: OrderedDict[torch.Size, Network] = OrderedDict()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        with self._lock:
            run = self._sizes.pop(batch.shape, None)
            if run is None:
                run = self._network
            elif run is self._network:
                run = self._recorded(batch)
            self._sizes[batch.shape] = run
            if len(self._sizes) > LIMIT:
                self._sizes.popitem(last=False)
            try:
                return run(batch)
            except RuntimeError as error:
                if is_out_of_memory(error):  # a smaller batch may need what the graphs hold
                    self._sizes.clear()
                raise

    def _recorded(self, batch: torch.Tensor) -> Network:
        try:
            with _recording:
                return Recorded(self._network, batch, self._memory())
        except RuntimeError as error:
            logging.getLogger(__name__).warning("No graph for %s: %s", "×".join(map(str, batch.shape)), error)
            return self._unrecorded

    def _memory(self) -> tuple[int, int] | None:
        """Where the graphs compute that there are; None for the first one, which takes its own."""
        return next((run.memory for run in self._sizes.values() if isinstance(run, Recorded)), None)

    def _unrecorded(self, batch: torch.Tensor) -> torch.Tensor:
        return self._network(batch)


class Recorded:
    """What the network does with a batch of this size, to be done again with other values."""

    def __init__(self, network: Network, batch: torch.Tensor, memory: tuple[int, int] | None):
        self._input, self._graph = batch.clone(), torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(self._graph, pool=memory, capture_error_mode="thread_local")
        with torch.cuda.device(batch.device), recording:
            self._output = network(self._input)
        self.memory = self._graph.pool()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self._input.copy_(batch)
        self._graph.replay()
        return self._output.clone()
