"""How a process that serves looks for garbage: hardly, as that stops every stream and finds next to nothing."""

import gc

# The young are searched after so many new objects, what survived that after ten such searches, and all after a
# hundred of these; Python 3.11's own are 700, 10, 10. The last goes through all that live streams hold, 70 ms for a
# thousand. What has ended leaves it nothing (`tests/e2e/test_garbage.py`), so it need not come often.
SEARCHES = (700, 10, 100)


def keep_what_is_loaded() -> None:
    """Modules, tables and weights stay to the end: looking for garbage in them would take 0.1 to 0.2 s each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCHES)
