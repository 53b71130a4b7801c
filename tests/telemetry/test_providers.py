"""The conventions' names of upstreams, by best knowledge."""

import pytest

from proxy.telemetry.providers import operation_of, provider_of


@pytest.mark.parametrize(
    ("dialect", "host", "name"),
    [
        ("openai", "api.openai.com", "openai"),
        ("openai", "127.0.0.1", "openai"),
        ("openai", "mine.openai.azure.com", "azure.ai.openai"),
        ("openai", "api.x.ai", "x_ai"),
        ("openai", "notx.ai", "openai"),
        ("anthropic", "gateway.internal", "anthropic"),
        ("gemini", "generativelanguage.googleapis.com", "gcp.gemini"),
        ("gemini", "europe-west1-aiplatform.googleapis.com", "gcp.gemini"),
    ],
)
def test_who_it_is(dialect: str, host: str, name: str) -> None:
    assert provider_of(dialect, host) == name


def test_what_it_does() -> None:
    assert operation_of("/v1/chat/completions", "openai") == "chat"
    assert operation_of("/v1/messages", "anthropic") == "chat"
    assert operation_of("/v1/chat/completions", "gemini") == "generate_content"
    assert operation_of("/v1/completions", "openai") == "text_completion"
    assert operation_of("/v1/embeddings", "openai") == "embeddings"
    assert operation_of("/v1/files", "openai") is None
