"""Without a GPU the guard's kernels run in triton's interpreter, which must be said before they are imported."""

import importlib.util
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# triton is there for Linux only.
collect_ignore = (
    []
    if importlib.util.find_spec("triton") is not None
    else ["test_kernels.py", "test_paged_model.py", "test_paged_runner.py"]
)
