"""The page's files, as they ship in the package, and the headers that everything for operators carries."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

# Path -> file and its type. They hold nothing secret, so that a browser without the key can ask for it.
SCRIPTS = ("console.js", "dom.js", "chart.js", "live.js", "playground.js", "records.js", "tokens.js")
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in SCRIPTS},
}

# Nothing but these files runs or is loaded, whatever a model has written into what they show.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@cache
def body_of(path: str) -> bytes:
    """The file behind one of the paths."""
    return files("proxy.console").joinpath("page", FILES[path][0]).read_bytes()
