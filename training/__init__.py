"""Makes the embedded guard: `python -m training DATA_DIR`. See README.md beside this file."""
