"""Passes of small nets on a GPU, where a graph of all their kernels replaces thousands of launches."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


@dataclass
class Captured:
    """Calls functions of tensors; on a GPU each is recorded as a CUDA graph once and replayed from then on.

    A function must do the same each time: read inputs and what lies at the same place in memory (parameters, buffers),
    change neither, and wait for nothing. What it returns is overwritten by its next call.
    """

    device: torch.device
    _graphs: dict[Hashable, tuple[Any, Tensors, Tensors]] = field(default_factory=dict)

    def __call__(self, key: Hashable, function: Callable[..., Tensors], *inputs: Tensor) -> Tensors:
        """Call a function.

        Args:
            key: says which function it is, as all of its arguments that are no tensors.
            function: takes and returns tensors.
            inputs: of which shapes belong to the key too.
        """
        if self.device.type != "cuda":
            return function(*inputs)
        key = (key, *(tuple(each.shape) for each in inputs))
        if key not in self._graphs:
            self._graphs[key] = self._capture(function, inputs)
        graph, places, outputs = self._graphs[key]
        for place, given in zip(places, inputs):
            place.copy_(given)
        graph.replay()
        return outputs

    def _capture(self, function: Callable[..., Tensors], inputs: Tensors) -> tuple[Any, Tensors, Tensors]:
        places = tuple(each.detach().clone() for each in inputs)
        aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            # Libraries choose their algorithms and take their memory in the first calls, which no graph may hold.
            for _ in range(2):
                function(*places)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # In memory of its own: in a shared pool other graphs would write over what this one returned.
        with torch.cuda.graph(graph):
            outputs = function(*places)
        return graph, places, outputs
