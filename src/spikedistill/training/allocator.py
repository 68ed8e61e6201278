"""The C library's memory allocator, set for tensors."""

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory in the process rather than return it to the system; does nothing under another C library.

    By default every tensor above 32 MiB is mapped anew, and each of its pages costs a fault when it is first written. Training
    frees and takes the same sizes again at every step, so it is faster to keep them. The setting holds for the rest of the process.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Tell glibc to return what is free to the system now; does nothing under another C library."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
