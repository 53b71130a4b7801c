"""A model folder's own code, in the shape of the released one: copied into a checkpoint, never imported from here.

As there, a stream's state is a generator that reads the whole text again for each token, a call after the first takes
one token, and of each token only the winning classes are told, rounded to two digits.
"""

import math
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3PreTrainedModel, Qwen3RMSNorm

LEVELS = {0: "Safe", 1: "Unsafe", 2: "Controversial"}
CATEGORIES = dict(
    enumerate(("Violent", "Sexual Content", "Self-Harm", "Political", "PII", "Copyright", "Illegal Acts", "Unethical"))
)
# Tokens that make this code misbehave, for tests of whoever calls it.
RAISES, ENDS, NOT_A_NUMBER, UNKNOWN_LABEL = 390, 391, 392, 393
State = Generator[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, None]


class SmallGuard(Qwen3PreTrainedModel):  # type: ignore[no-untyped-call]
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Qwen3Model(config)
        inner = config.guard_inner_size
        for prefix, categories in (("", config.num_category), ("query_", config.num_query_category)):
            for name, module in (
                ("risk_level_category_pre", nn.Linear(config.hidden_size, inner, bias=False)),
                ("risk_level_category_layernorm", Qwen3RMSNorm(inner, eps=config.rms_norm_eps)),
                ("risk_level_head", nn.Linear(inner, config.num_risk_level, bias=False)),
                ("category_head", nn.Linear(inner, categories, bias=False)),
            ):
                setattr(self, prefix + name, module)
        self.open_states = 0
        self.post_init()  # type: ignore[no-untyped-call]

    def _heads(self, hidden: Tensor, prefix: str) -> tuple[Tensor, Tensor]:
        pre, norm = (getattr(self, f"{prefix}risk_level_category_{name}") for name in ("pre", "layernorm"))
        inner = norm(pre(hidden))
        return getattr(self, prefix + "risk_level_head")(inner), getattr(self, prefix + "category_head")(inner)

    def stream_generate(self, ids: Tensor) -> State:
        self.open_states += 1
        try:
            while True:
                hidden = self.model(ids.unsqueeze(0)).last_hidden_state[0, -1:]
                token = yield (*self._heads(hidden, ""), *self._heads(hidden, "query_"))
                ids = torch.cat([ids, torch.tensor([token])])
        finally:
            self.open_states -= 1

    @torch.no_grad()
    def stream_moderate_from_ids(
        self, token_ids: Tensor, role: str, stream_state: State | None = None
    ) -> tuple[dict[str, list[Any]], State]:
        last = int(token_ids.reshape(-1)[-1])
        if last == RAISES:
            raise RuntimeError("the text is: secret")
        if stream_state is None:
            stream_state = self.stream_generate(token_ids)
            logits = next(stream_state)
        else:
            if last == ENDS:
                stream_state.close()
            logits = stream_state.send(token_ids)
        risk, category = logits[2:] if role == "user" else logits[:2]
        names = {**CATEGORIES, 8: "Jailbreak"} if role == "user" else CATEGORIES
        risk_prob, level = risk.softmax(-1).max(-1)
        category_prob, kind = category.softmax(-1).max(-1)
        return {
            "risk_level": ["Odd" if last == UNKNOWN_LABEL else LEVELS[int(level)]],
            "risk_prob": [math.nan if last == NOT_A_NUMBER else round(float(risk_prob), 2)],
            "category": [names[int(kind)]],
            "category_prob": [round(float(category_prob), 2)],
        }, stream_state

    def close_stream(self, stream_state: State) -> None:
        stream_state.close()
