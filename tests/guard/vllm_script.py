"""A worker's process whose vLLM is a script, with a process of its own that ends with nothing. No torch here.

python -m tests.guard.vllm_script < config      # instead of `proxy.guard.vllm_worker`
"""

import os
import random
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.guard.process import Config, VllmGuard
from proxy.guard.protocol import GuardInfo, GuardUnavailable
from proxy.guard.vllm_reader import WIDTH, VllmReader
from proxy.guard.vllm_worker import main
from tests.guard.scripted_vllm import COLUMNS, Answer, ScriptedLLM

VOCABULARY = 400
# A text with it kills vLLM.
DEADLY = 399
# The file in the model's folder that names the process which vLLM has left.
ENGINE_CORE = "engine_core"


def model(ids: list[int]) -> NDArray[np.float32]:
    """Logits that depend on a token and all before it."""
    dice = [random.Random(str(ids[: end + 1])) for end in range(len(ids))]
    return np.array([[one.uniform(-3, 3) for _ in range(WIDTH)] for one in dice], np.float32)


class MortalLLM(ScriptedLLM):
    async def encode(self, prompt: Any, pooling_params: bool, request_id: str) -> AsyncGenerator[Any]:
        if DEADLY in prompt["prompt_token_ids"]:
            self.errored = True
            self.faults.append(_die)
        async for answer in super().encode(prompt, pooling_params, request_id):
            yield answer


def _die(_: Answer) -> Exception:
    return RuntimeError("EngineDeadError")


def load(config: Config) -> Any:
    folder = Path(config.model)
    if not folder.is_dir():
        raise GuardUnavailable(f"{config.model}: no such folder")
    (folder / ENGINE_CORE).write_text(str(subprocess.Popen(["sleep", "3600"]).pid))
    return SimpleNamespace(
        reader=VllmReader(MortalLLM(model), bool, COLUMNS),
        info=GuardInfo(folder.name, str(os.getpid()), config.settings.window or 100),
        vocabulary=VOCABULARY,
        close=lambda: None,
    )


class ScriptedVllmGuard(VllmGuard):
    module = "tests.guard.vllm_script"


if __name__ == "__main__":
    main(load)
