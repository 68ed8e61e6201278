"""C++ that is compiled for the machine on which it runs, and kept for the next process.

A private room: `neurons` and `sparse` build their loops here.
"""

from .build import DTYPES, call, check_compiler, library
from .code_cache import cache_folder, private_folder

__all__ = ["DTYPES", "cache_folder", "call", "check_compiler", "library", "private_folder"]
