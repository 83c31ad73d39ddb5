"""Benchmarks, one suite a file, for `pytest bench/` in a checkout, and what they share.

They need the extra `bench`. Nothing else in budget imports them.
"""

from os.path import dirname, isfile, join, realpath

# As in budget/kernels: a checkout has the files in the top-level folder bench/, a wheel right here.
_top = dirname(dirname(dirname(realpath(__file__))))
if isfile(join(_top, "bench", "bench_models.py")):
    __path__.append(join(_top, "bench"))
