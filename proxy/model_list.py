"""The upstream's list of models, rebuilt from the fields that name them."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from adapters.metadata import MODEL, matches
from proxy.settings import Dialect

FIELDS: Mapping[str, type] = {"id": str, "object": str, "created": int, "owned_by": str}


# As many as the dialect lists at once.
QUERIES: Mapping[Dialect, str] = {"anthropic": "limit=1000", "gemini": "pageSize=1000"}


def read_models(body: bytes, dialect: Dialect = "openai") -> dict[str, Any]:
    """{"object": "list", "data": [...]} in OpenAI's words. Raises ValueError for what is no list of models."""
    try:
        parsed = json.loads(body)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    data = parsed.get("models" if dialect == "gemini" else "data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        raise ValueError("no list of models")
    told = [READERS[dialect](entry) for entry in data if isinstance(entry, dict)]
    return {"object": "list", "data": [entry for entry in told if isinstance(entry.get("id"), str)]}


def _openai(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name, kind in FIELDS.items() if isinstance(entry.get(name), kind)}


def _anthropic(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": entry.get("id"),
        "object": "model",
        "created": _seconds(entry.get("created_at")),
        "owned_by": "anthropic",
    }


def _gemini(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Those that answer to generateContent; their names without the "models/" that clients do not send."""
    name, methods = entry.get("name"), entry.get("supportedGenerationMethods")
    if not matches(name, MODEL) or not isinstance(methods, list) or "generateContent" not in methods:
        return {}
    return {"id": name.removeprefix("models/"), "object": "model", "created": 0, "owned_by": "google"}


def _seconds(moment: Any) -> int:
    try:
        return int(datetime.fromisoformat(moment).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0


READERS: Mapping[Dialect, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
}
