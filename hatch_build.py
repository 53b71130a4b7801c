"""Compile the way of a chunk with mypyc, from the same source: what it saves is in docs/performance.md.

`WEIR_COMPILE=1 pip wheel .` builds a wheel with the extension modules in it; `python hatch_build.py` puts them beside
their sources in this checkout, where Python prefers them; `python hatch_build.py --clean` takes them away.
Without the variable, and where no C compiler is, everything runs as plain Python.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
# What runs for every chunk, but for two sorts of modules: those with coroutines, since an exception of one came out of
# another (mypyc 2.4, an `await` in a `finally`), and those with subclasses of msgspec's or aiohttp's. What subclasses a
# compiled class is compiled, too. A constant that is asked for with each chunk is Final: the compiler writes it into
# the code, where any other is looked up in its module.
MODULES = (
    "adapters/anthropic_chat.py",
    "adapters/base.py",
    "adapters/gemini_chat.py",
    "adapters/metadata.py",
    "adapters/notations.py",
    "adapters/openai_chat.py",
    "adapters/openai_chat_body.py",
    "adapters/openai_chat_calls.py",
    "adapters/openai_chat_fields.py",
    "adapters/openai_chat_logprobs.py",
    "adapters/openai_chat_reader.py",
    "adapters/openai_chat_repeats.py",
    "adapters/openai_completions.py",
    "adapters/strict_json.py",
    "adapters/translation.py",
    "proxy/answer_parser.py",
    "proxy/channel.py",
    "proxy/channels.py",
    "proxy/choices.py",
    "proxy/chunk_writer.py",
    "proxy/driver.py",
    "proxy/framing.py",
    "proxy/gate.py",
    "proxy/guard/rows.py",
    "proxy/guard/streams.py",
    "proxy/hold_times.py",
    "proxy/inquiry.py",
    "proxy/judge.py",
    "proxy/normalizer.py",
    "proxy/pretoken.py",
    "proxy/pump.py",
    "proxy/retokenizer.py",
    "proxy/risk.py",
    "proxy/settling.py",
    "proxy/splitter.py",
    "proxy/sse.py",
    "proxy/stream.py",
    "proxy/streamed.py",
    "proxy/structs.py",
    "proxy/surrogates.py",
    "proxy/upstream_body.py",
    "proxy/upstream_connection.py",
    "proxy/view.py",
    "proxy/vocabulary/beginnings.py",
)
REQUIRES = ("mypy==2.4.1", "setuptools>=80")
# `make check` is where types are checked; here they only say what can be compiled well.
MYPY = """[mypy]
python_version = 3.11
ignore_missing_imports = True
follow_imports = silent
[mypy-torch.*,triton.*,transformers.*,pydantic.*,openai.*,numpy.*,rich.*]
follow_imports = skip
"""
SETUP = """
from mypyc.build import mypycify
from setuptools import setup
setup(name="weir-proxy-compiled", packages=[], ext_modules=mypycify({arguments!r}, target_dir={folder!r}))
"""


def extensions() -> list[Path]:
    """The compiled modules that lie in this checkout."""
    folders = {Path(module).parent for module in MODULES} | {Path()}
    places = [(ROOT / folder).glob(f"*{suffix}") for folder in folders for suffix in (".so", ".pyd")]
    return [path for place in places for path in place]


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Raises ValueError for a word that says neither yes nor no."""
    said = environ.get("WEIR_COMPILE", "")
    if said not in ("", "0", "1"):
        raise ValueError(f"WEIR_COMPILE is 1 or 0, not {said!r}")
    return said == "1"


def clean() -> None:
    for path in extensions():
        path.unlink()


def compile_modules() -> None:
    """Beside their sources. Raises CalledProcessError."""
    clean()
    with tempfile.TemporaryDirectory() as folder:
        config, script = Path(folder) / "mypy.ini", Path(folder) / "setup.py"
        config.write_text(MYPY)
        script.write_text(SETUP.format(arguments=["--config-file", str(config), *MODULES], folder=folder))
        # A quiet compiler: what it would say is of code that nobody wrote.
        places = ["--build-temp", folder, "--build-lib", folder]
        command = [sys.executable, str(script), "-q", "build_ext", "--inplace", *places]
        subprocess.run(command, cwd=ROOT, check=True)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # run as a program
    pass
else:

    class CompileHook(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore]  # not installed where types are checked
        """Of a wheel, where WEIR_COMPILE=1 asks for it."""

        def dependencies(self) -> list[str]:
            return list(REQUIRES) if is_wanted(os.environ) else []

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            if not is_wanted(os.environ) or version == "editable":
                return
            compile_modules()
            build_data["force_include"] |= {str(path): str(path.relative_to(ROOT)) for path in extensions()}
            build_data["pure_python"], build_data["infer_tag"] = False, True

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            if not build_data.get("pure_python", True):
                clean()  # who builds a wheel of a checkout goes on with its sources


if __name__ == "__main__":
    clean() if "--clean" in sys.argv[1:] else compile_modules()
