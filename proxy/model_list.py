"""The upstream's list of models, rebuilt from the fields that name them."""

import json
from collections.abc import Mapping
from typing import Any

FIELDS: Mapping[str, type] = {"id": str, "object": str, "created": int, "owned_by": str}


def read_models(body: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no list of models."""
    try:
        parsed = json.loads(body)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        raise ValueError("no list of models")
    named = [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return {"object": "list", "data": [_named_fields(entry) for entry in named]}


def _named_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name, kind in FIELDS.items() if isinstance(entry.get(name), kind)}
