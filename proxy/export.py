"""`weir export-embedded`: the embedded guard as a plain folder, for other programs and for a look inside.

The folder has the layout of a released Qwen3Guard-Stream checkpoint: `transformers` opens its backbone and
tokenizer, and `--guard DIR` opens it here, with the verdicts of the embedded one.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from proxy import vocabulary
from proxy.guard import embedded
from proxy.tokenizer_files import tokenizer_config, tokenizer_json
from proxy.vocabulary import VocabularyError

MODEL_CARD = "MODEL_CARD.md"
WEIGHTS = "model.safetensors"
FRONT_MATTER = """\
---
license: apache-2.0
pipeline_tag: text-classification
tags: [safety, guardrail, qwen3guard-stream, demo]
---
"""
INTRODUCTION = """\
# Weir's embedded guard, exported

DEMO GRADE: it shows how a Qwen3Guard-Stream checkpoint is built and judged, and is not fit to protect anyone.

    weir moderate conversation.json --guard THIS_FOLDER
    transformers.AutoModel.from_pretrained("THIS_FOLDER")      # the backbone; the heads are four more tensors each
    transformers.AutoTokenizer.from_pretrained("THIS_FOLDER")
"""


class ExportError(Exception):
    """The folder was not written, and why."""


def run(folder: Path, *, force: bool) -> int:
    """Write the folder and say so; returns the exit status."""
    try:
        files = export(folder, force=force)
    except ExportError as exc:
        print(exc, file=sys.stderr)
        return 2
    except (embedded.EmbeddedGuardError, VocabularyError) as exc:
        print(f"The embedded guard cannot be read: {exc}.", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"{folder} cannot be written: {exc.strerror or exc}.", file=sys.stderr)
        return 1
    total = sum(file.stat().st_size for file in files)
    print(f"{folder}: {', '.join(file.name for file in files)}; {total / 1e6:.0f} MB. Demo grade.")
    return 0


def export(folder: Path, *, force: bool = False) -> list[Path]:
    """Write the embedded guard into `folder`; returns the files. Raises ExportError, EmbeddedGuardError, OSError."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ExportError(f"{folder} is not empty; pass --force to write into it all the same.")
    config, tensors = embedded.load()
    folder.mkdir(parents=True, exist_ok=True)
    # An index of other weights would be read before ours.
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    with _whole(folder / WEIGHTS) as path:
        # transformers refuses a file that does not say which framework its tensors are of.
        save_file(tensors, path, metadata={"format": "pt"})
    texts = {
        "config.json": _json(config),
        "tokenizer.json": _json(tokenizer_json(vocabulary.load()), indent=None),
        "tokenizer_config.json": _json(tokenizer_config(int(config["max_position_embeddings"]))),
        "README.md": readme(),
    }
    for name, text in texts.items():
        with _whole(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in (*texts, WEIGHTS)]


def readme() -> str:
    card = embedded.FOLDER / MODEL_CARD
    rest = f"\n{card.read_text(encoding='utf-8')}" if card.is_file() else ""
    return f"{FRONT_MATTER}\n{INTRODUCTION}{rest}"


def _json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent) + "\n"


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` once everything is there."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        # safetensors lets only the owner read what it writes; a container that mounts the folder is another user.
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
