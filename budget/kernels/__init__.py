"""Triton kernels, one file each, with their torch references: `from budget.kernels.matmul import matmul`.

They need the extra `torch`. Nothing else in budget imports them.
"""

from os.path import dirname, isfile, join, realpath

# In a checkout the files are in the top-level folder kernels/: as a package of that name they would
# hide Hugging Face's `kernels` from transformers. A wheel has them right here, and must not pick up
# another package's folder beside it: hence the look for this project's own file.
_top = dirname(dirname(dirname(realpath(__file__))))
if isfile(join(_top, "kernels", "matmul_kernel.py")):
    __path__.append(join(_top, "kernels"))
