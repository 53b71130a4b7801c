"""Which notations an answer is annotated in: the operator's, and what the client asks for beside them."""

from collections.abc import Iterable

from adapters.base import Notations
from proxy.errors import ApiError
from proxy.policy import Policy
from proxy.policy_settings import PolicySettings
from proxy.settings import AnnotationSettings

ANNOTATIONS_HEADER = "x-weir-annotations"
NOTATIONS = ("weir", "openai", "azure")


def asked_notations(headers: Iterable[str], *, wants_moderation: bool = False) -> frozenset[str]:
    """What a client asks for, by names in its headers ("weir, azure") and by a `moderation` field. Raises ApiError."""
    names = frozenset(name.strip().lower() for header in headers for name in header.split(",")) - {""}
    if not names <= set(NOTATIONS):
        message = f"'{ANNOTATIONS_HEADER}' takes {', '.join(NOTATIONS)}."
        raise ApiError(400, message, param=ANNOTATIONS_HEADER, code="invalid_value")
    return names | {"openai"} if wants_moderation else names


def notations_of(
    settings: AnnotationSettings, policy: PolicySettings, answer: Policy, asked: frozenset[str]
) -> Notations:
    """What the policy says goes before `[annotations]`. A client can add to it, and take nothing away.

    Of an answer that is merely watched only the record tells.
    """
    own = policy.annotations
    names = {name for name in NOTATIONS if getattr(settings, name)} if own is None else set(own)
    if settings.client_may_ask:
        names |= asked
    if answer.is_watching:
        names.clear()
    return Notations(weir="weir" in names, openai="openai" in names, azure="azure" in names)
