"""Calls Weir the way an app does, and says what the app's developer sees. Runs in the clients' own environment.

A JSON line in, {"app", "way", "url", "stream", "tools"}; a JSON line out, the fields of `Seen` and the versions.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

KEY = "sk-client"


@dataclass
class Seen:
    text: str = ""
    finish: str | None = None  # in the client's own word
    calls: list[list[str]] = field(default_factory=list)  # the tools: name, arguments
    annotation: str | None = None  # where the client shows Weir's verdict
    error: dict[str, Any] | None = None
    dump: str = ""  # everything that the client gave, as text

    def keep(self, value: object) -> None:
        self.dump += f"{value!r}\n"

    def call(self, name: str | None, arguments: object) -> None:
        said = arguments if isinstance(arguments, str) else json.dumps(arguments)
        self.calls.append([name or "", said])

    def annotate(self, where: str, value: Any) -> None:
        """`value`: Weir's object, of a chunk or of a whole answer; it counts where it tells the verdict."""
        if value is not None and "Unsafe" in str(value):
            self.annotation = where

    def fail(self, error: BaseException) -> None:
        kind = type(error)
        package = kind.__module__.split(".")[0]
        told = {"kind": f"{package}.{kind.__name__}" if package != "builtins" else kind.__name__}
        status = getattr(error, "status_code", None)
        self.error = {**told, "status": status, "message": str(error)}
        self.dump += "".join(traceback.format_exception(error, chain=True))


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    app = importlib.import_module(asked["app"])
    seen = Seen()
    try:
        app.WAYS[asked["way"]](asked["url"], stream=asked["stream"], tools=asked["tools"], seen=seen)
    except Exception as error:
        seen.fail(error)
    return asdict(seen) | {"version": importlib.metadata.version(app.PACKAGE)}


def main() -> None:
    warnings.simplefilter("ignore")
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    # One module of this name, for the apps as well.
    sys.modules["worker"] = sys.modules["__main__"]
    main()
