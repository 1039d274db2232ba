"""Memory on a CPU's huge pages, for what is read again and again: fewer addresses to translate."""

import contextlib
import math
import mmap

import torch

_HUGE = 2**21  # bytes of a page


def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of zeros, on huge pages where the system gives them for the asking."""
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, size + _HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    room = torch.frombuffer(memory, dtype=torch.uint8)
    start = -room.data_ptr() % _HUGE
    return room[start : start + size].view(dtype).view(shape)
