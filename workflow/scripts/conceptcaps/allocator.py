"""The C library's memory: what a job frees is kept for what it asks for next."""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST = 2**30  # bytes: larger blocks are still mapped, and returned, one by one
_KEPT = 2**31 - 1  # bytes free at the heap's end beyond which they are returned
_STEP = 2**26  # bytes by which the heap grows


def keep_freed() -> bool:
    """Let this process reuse large blocks of memory; return whether it does.

    By default glibc maps every block above 32 MB afresh and unmaps it when it is freed, so a
    training step faults in all pages of its activations again: a third of its time on a CPU.
    Elsewhere than on glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, _STEP))
    return all([mallopt(name, value) for name, value in settings])
