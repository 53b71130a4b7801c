"""What the kernels' tests need."""

import importlib.util

# triton is there for Linux only.
collect_ignore = (
    []
    if importlib.util.find_spec("triton") is not None
    else ["test_kernels.py", "test_paged_model.py", "test_paged_runner.py"]
)
