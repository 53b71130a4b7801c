"""Writes MODEL_CARD.md: what the guard is, how it scores beside the dummies, whose data it learnt from."""

from collections.abc import Sequence
from pathlib import Path

import torch

from proxy.risk import RiskLevel
from training.examples import Example, Stretch
from training.export import reload
from training.figures import Row, Score
from training.judge import UNSAFE, first_flag, read
from training.model import Guard
from training.probes import ALL_PROBES, SAFE_CHATS, TURNING_ANSWERS, Probe
from training.sources import SOURCES
from training.vocabulary import decode, encode

CARD = "MODEL_CARD.md"

HEAD = """# The embedded guard (demo grade)

A small model of Qwen3Guard-Stream's architecture and vocabulary that ships inside Weir, so that it runs, demonstrates
and tests itself with no network, no GPU and no account. **It is demo grade: it is no protection.** For real use give
Weir `Qwen/Qwen3Guard-Stream-0.6B`, 4B or 8B. English only: what it does with other languages is measured below, not
promised. It knows what its sources know; a request or an insult in words that they do not use passes. Most of what it
was trained on is short: how far into an answer it still sees a turn is measured below.

- {layers} Qwen3 layers of width {hidden}, {heads} heads; Qwen3Guard's two twins of heads; {parameters:.2f} M parameters
  beside the embedding of 151,936 x {hidden}. The file holds {megabytes:.1f} MB; `load()` expands it.
- Trained by `python -m training DATA_DIR` on the sources listed below and on requests, refusals and answers of our own
  (`training/texts/`). Token vectors start from all-MiniLM-L6-v2 and from the weights that the linear baseline gives
  each token. Beside the labels of prompts stands what a classifier on that encoder thinks of them. Beside every token,
  an answer's highest pair of tokens is trained: it is what the verdict rests on; beside an answer's label stands what
  the linear baseline thinks of it, fitted on other answers. This file: {how}.
- Thresholds are set on held-out everyday text: at most 1.5 % of its prompts and 0.75 % of its answers are flagged
  Unsafe, among sources that were partly trained on, in one that was not at all (self-instruct), and in English and
  Chinese topics of our own that were not. Before that the Unsafe row of the answers' head was fitted to verdicts on
  whole answers that were not trained on. On benign text of other origin more may be flagged: see benign-alpaca below.
- No threshold, text or example was chosen on the evaluation sets. Their figures for earlier versions were seen, and
  that this file replaced an earlier one was decided by them: `training/README.md` says how, and lists the other runs.

## Figures

The published rule: a prompt is judged at its closing `<|im_end|>`; an answer is flagged when two consecutive tokens are
Unsafe (loose), or else Controversial (strict). In percent. "alarms" is the share of safe texts that are flagged. Read
every F1 beside the dummies: `flag everything`, and `not-a-refusal`, which flags an answer unless it begins by refusing.
"""

TABLE_HEAD = """
| judge | F1 loose | strict | precision | recall | AUC | alarms loose | strict |
|---|---|---|---|---|---|---|---|
"""

PROBES_HEAD = """
## Probes

Texts of `training/texts/probes.toml`, in none of the data; but earlier versions were looked at on them and the authored
texts grew where they failed, so they demonstrate and do not measure. P(U) is the probability of Unsafe: of the prompt,
the highest in the harmless part of the answer, and the highest after the turn; `lag` is the number of tokens from the
turn to the flag.

| prompt | P(U) prompt | P(U) harmless part | P(U) after the turn | lag |
|---|---|---|---|---|
"""

DEPTHS_HEAD = """
## Turns behind long answers

The five turning answers above behind N harmless tokens: the answers of the harmless chats, over and over. "caught" is
flagged within {lag} tokens of the turn and not before it; "too early" is a false alarm in the harmless part.

| N | caught | too early | missed |
|---|---|---|---|
"""
DEPTHS = (0, 120, 240, 480, 960, 1_500)
LAG = 32

ATTRIBUTION = """
## Sources and attribution

The data itself is not part of Weir. Categories are weak: where a source has none they were guessed by keyword. Rows
of sources under CC-BY are used under that licence with attribution to the named authors; nothing under a share-alike
or non-commercial licence was trained on (dolly-15k was left out; do-not-answer and alpaca serve evaluation only).
Several files under MIT or Apache-2.0 hold text written by GPT-3.5/4, Llama-2/3, Vicuna or Gemma, whose vendors' terms
may bind whoever generated it (GPTeacher, arena-hard, GPTFuzz, JailbreakBench, llm-past-tense, llm-adaptive-attacks,
refusal_direction): judge for yourself before you build on these weights.

| source | repository | licence |
|---|---|---|
"""


def write_card(out: Path, rows: Sequence[Row], how: str) -> None:
    guard, config = reload(out)
    parameters = sum(p.numel() for name, p in guard.named_parameters() if "embed_tokens" not in name) / 1e6
    text = HEAD.format(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        parameters=parameters,
        megabytes=(out / "weights.safetensors").stat().st_size / 1e6,
        how=how,
    )
    for name, kind in dict.fromkeys((row.data, row.kind) for row in rows):
        chosen = [row for row in rows if (row.data, row.kind) == (name, kind)]
        text += f"\n**{name}**, {kind}: {chosen[0].size}, of which {chosen[0].unsafe} unsafe\n{TABLE_HEAD}"
        text += "".join(_line(row) for row in chosen)
    text += PROBES_HEAD
    for probe in ALL_PROBES:
        text += _probe_line(guard, probe)
    text += DEPTHS_HEAD.format(lag=LAG) + "".join(_depth_line(guard, depth) for depth in DEPTHS)
    text += ATTRIBUTION + "".join(f"| {name} | {where} | {licence} |\n" for name, where, licence in SOURCES)
    (out / CARD).write_text(text)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _line(row: Row) -> str:
    def f1(score: Score) -> str:
        return _percent(score.f1) if row.unsafe else "-"

    cells = (
        f1(row.loose),
        f1(row.strict),
        _percent(row.loose.precision),
        _percent(row.loose.recall),
        _percent(row.auc),
    )
    if not row.unsafe:
        cells = ("-",) * 5
    alarms = [_percent(score.alarms) if row.unsafe < row.size else "-" for score in (row.loose, row.strict)]
    return f"| {row.judge} | {' | '.join((*cells, *alarms))} |\n"


def _depth_line(guard: Guard, depth: int) -> str:
    harmless = encode("\n\n".join(probe.answer.strip() for probe in SAFE_CHATS))
    lead = decode([harmless[index % len(harmless)] for index in range(depth)])
    counts = {"caught": 0, "early": 0, "missed": 0}
    for probe in TURNING_ANSWERS:
        start = len(encode(lead + probe.answer))
        answer = (Stretch(lead + probe.answer + probe.turn, RiskLevel.SAFE),)
        reading = read(guard, [Example("probe", probe.prompt, answer=answer)])[0]
        with torch.inference_mode():
            flag = first_flag(reading, guard.risk_level_head.weight)
        is_missed = flag is None or flag > start + LAG
        counts["missed" if is_missed else "early" if flag is not None and flag < start else "caught"] += 1
    return f"| {depth} | {counts['caught']} | {counts['early']} | {counts['missed']} |\n"


def _probe_line(guard: Guard, probe: Probe) -> str:
    text = probe.answer + probe.turn
    example = Example("probe", probe.prompt, answer=(Stretch(text, RiskLevel.SAFE),) if text else ())
    with torch.inference_mode():
        reading = read(guard, [example])[0]
        prompt = (reading.query @ guard.query_risk_level_head.weight.T).softmax(-1)[0, UNSAFE]
        head = guard.risk_level_head.weight
        chances = (reading.reply @ head.T).softmax(-1)[:, UNSAFE]
        start = len(encode(probe.answer))
        flag = first_flag(reading, head)
    harmless = f"{chances[:start].max():.2f}" if probe.answer else ""
    after = f"{chances[start:].max():.2f}" if probe.turn else ""
    lag = str(flag - start) if flag is not None else "never" if probe.turn else ""
    return f"| {probe.prompt} | {prompt:.2f} | {harmless} | {after} | {lag} |\n"
