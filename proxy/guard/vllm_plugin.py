"""The entry point by which vLLM, in each of its processes, learns of the guard's model class."""

from vllm import ModelRegistry

# What a released checkpoint's config.json names. The class is imported where it is needed, and not before.
ARCHITECTURE = "Qwen3ForGuardModel"
PLACE = "proxy.guard.vllm_model:Qwen3ForGuardModel"


def register() -> None:
    """May be called any number of times in a process."""
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, PLACE)
