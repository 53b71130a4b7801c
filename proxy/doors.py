"""The moderated endpoints: for each path, how its requests are read and how its errors are written.

A dialect is one adapter (`adapters.ENDPOINTS`), one request reader, and one line here. What is not
here or a route of its own in `app` is a 404: there is no way to the upstream that is not listed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.chat_request import read_chat_request
from proxy.completion_request import read_completion_request
from proxy.error_bodies import anthropic_body, openai_body
from proxy.errors import ApiError
from proxy.message_request import read_message_request
from proxy.policies import Chosen
from proxy.request_fields import ModeratedRequest, Terms
from proxy.response_request import read_response_request
from proxy.server_settings import ServerSettings

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"


@dataclass(frozen=True, slots=True)
class Door:
    read: Callable[[Mapping[str, Any], Terms], ModeratedRequest]  # raises BadRequest
    prompt_param: str  # the field that a refusal of the prompt names
    write_error: Callable[[ApiError], dict[str, Any]] = openai_body


DOORS: Mapping[str, Door] = {
    CHAT: Door(read_chat_request, "messages"),
    COMPLETIONS: Door(read_completion_request, "prompt"),
    RESPONSES: Door(read_response_request, "input"),
    MESSAGES: Door(read_message_request, "messages", anthropic_body),
}


def error_body(path: str, error: ApiError) -> dict[str, Any]:
    """The error as clients of that path read it; OpenAI's shape where the path is none of ours."""
    door = DOORS.get(MESSAGES if path.startswith(f"{MESSAGES}/") else path)
    return error.body() if door is None else door.write_error(error)


def terms_of(limits: ServerSettings, chosen: Chosen) -> Terms:
    """Where nothing is ever withheld, nothing needs to be refused for not being judged."""
    policy, is_watching = chosen.settings, chosen.policy.is_watching
    return Terms(
        limits=limits,
        allow_stored=policy.allow_stored or is_watching,
        allow_unscanned=policy.allow_unscanned or is_watching,
    )
