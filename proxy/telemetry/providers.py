"""The conventions' words for whom an upstream is and what it is asked to do."""

from collections.abc import Mapping

# By the end of the host's name; a host of nobody's is known by what it speaks.
PROVIDERS: Mapping[str, str] = {
    "openai.azure.com": "azure.ai.openai",
    "azure.com": "azure.ai.inference",
    "amazonaws.com": "aws.bedrock",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "anthropic.com": "anthropic",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
OF_DIALECT: Mapping[str, str] = {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}
OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


def provider_of(dialect: str, host: str) -> str:
    """As the conventions have it: by best knowledge, which of a compatible API is what it is compatible with."""
    found = (name for end, name in PROVIDERS.items() if host == end or host.endswith(f".{end}"))
    return next(found, OF_DIALECT[dialect])


def operation_of(endpoint: str, dialect: str) -> str | None:
    """None for what is no generation: files, models, counts of tokens."""
    return "generate_content" if dialect == "gemini" else OPERATIONS.get(endpoint)
