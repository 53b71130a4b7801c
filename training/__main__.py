"""`python -m training DATA_DIR [--out DIR]`: data folder -> weights, config, model card, figures, log."""

import argparse
import json
import logging
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from proxy.guard.embedded import CONFIG, WEIGHTS
from proxy.risk import RiskLevel
from training import linear
from training.card import write_card
from training.data import authored_examples, everyday, held_authored, split, train_examples
from training.examples import Example
from training.export import export, export_risk_heads, reload
from training.features import Features, token_features
from training.figures import DUMMIES, Judge, Row, figures
from training.judge import Verdict, answer_verdict, prompt_verdict, read
from training.model import Embedding, Guard, guard_config
from training.rounds import Plan, train
from training.teacher import opinions_of
from training.thresholds import ANSWER_ALARMS, PROMPT_ALARMS, calibrate
from training.verdicts import fit_answers, fresh_answers
from training.vocabulary import RANKS, TOKENS, encode

log = logging.getLogger("training")

MEANING_WIDTH = 128
OWN_ROW_FROM = 6  # occurrences in the data that earn a token a row of its own


@dataclass(frozen=True, slots=True)
class Sets:
    kept: list[Example]
    held: list[Example]

    @property
    def benign_prompts(self) -> list[Example]:
        return [e for e in everyday(self.held) if e.prompt_risk is RiskLevel.SAFE and e.prompt]

    @property
    def benign_answers(self) -> list[Example]:
        return [e for e in everyday(self.held) if e.answer_risk is RiskLevel.SAFE]


def main() -> None:
    args = _arguments()
    work: Path = args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO, filename=args.out / "log.txt", format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.monotonic()
    kept, held = split(train_examples(args.data), args.seed)
    held += held_authored(args.seed, args.data)
    sets = Sets(kept + authored_examples(args.seed, args.data, kept), held)
    log.info("%d examples to train on, %d held out", len(sets.kept), len(sets.held))
    baseline = _baseline(sets, args.seed)
    how = _copied(args) if args.refit else _trained(args, sets, baseline, work)
    _refit(args.out, sets, args.seed)
    rows = evaluate(args.out, args.data, baseline)
    minutes = (time.monotonic() - started) / 60
    write_card(args.out, rows, f"{how}, {minutes:.0f} minutes in all")
    log.info("done in %.1f minutes", minutes)


def _copied(args: argparse.Namespace) -> str:
    for name in (CONFIG, WEIGHTS):
        shutil.copy(args.refit / name, args.out / name)
    return f"an earlier one whose verdicts were fitted and whose thresholds were set again, seed {args.seed}"


def _trained(args: argparse.Namespace, sets: Sets, baseline: dict[str, linear.Linear], work: Path) -> str:
    config = guard_config(layers=args.layers)
    features = _features(baseline, work, not args.no_encoder)
    guard = Guard(config, _embedding(sets.kept, features, work, config["hidden_size"]))
    opinions = None if args.no_encoder else opinions_of(sets.kept, work, args.seed)
    plan = Plan(args.passes, seed=args.seed, limit=args.limit, minutes=args.minutes)
    passes = train(guard, sets.kept, plan, work, opinions, linear.answer_opinions(sets.kept, args.seed))
    export(guard.eval(), config, args.out)
    return f"one run of {passes:.1f} passes, seed {args.seed}, {args.threads} threads"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with train.jsonl.gz and eval-*.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("out/embedded"))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="examples a pass, for a quick try")
    parser.add_argument("--minutes", type=float, help="end the training by then, whatever passes remain")
    parser.add_argument(
        "--refit", type=Path, metavar="FOLDER", help="train nothing: fit verdicts and set thresholds of the guard there"
    )
    parser.add_argument("--no-encoder", action="store_true", help="train without the sentence encoder")
    args = parser.parse_args()
    if args.refit and not all((args.refit / name).is_file() for name in (CONFIG, WEIGHTS)):
        parser.error(f"no guard in {args.refit}: it needs {CONFIG} and {WEIGHTS}")
    if args.refit and args.refit.resolve() == args.out.resolve():
        parser.error("--refit and --out are the same folder")
    return args


def _baseline(sets: Sets, seed: int) -> dict[str, linear.Linear]:
    models = {kind: linear.fit(sets.kept, kind, seed) for kind in ("prompts", "answers")}
    linear.calibrate(models["prompts"], [e.prompt for e in sets.benign_prompts], PROMPT_ALARMS)
    linear.calibrate(models["answers"], [e.answer_text for e in sets.benign_answers], ANSWER_ALARMS)
    log.info("the linear baseline is ready")
    return models


def _features(baseline: dict[str, linear.Linear], work: Path, use_encoder: bool) -> Features:
    """What is known of each token before any training: its text's meaning, and the baseline's opinion."""
    opinions = [linear.token_opinions(baseline[kind]) for kind in ("prompts", "answers")]
    return np.concatenate([token_features(work, MEANING_WIDTH, use_encoder), *opinions], axis=1)


def _embedding(examples: list[Example], features: Features, work: Path, hidden: int) -> Embedding:
    control = np.zeros((TOKENS - RANKS, features.shape[1]), np.float32)
    # Kept beside the training state: a resumed run must have the same rows.
    path = work / "own.npy"
    if not path.exists():
        np.save(path, _frequent(examples))
    own = np.load(path)
    log.info("%d tokens have a row of their own", len(own))
    return Embedding(torch.from_numpy(np.concatenate([features, control])), torch.from_numpy(own), hidden)


def _frequent(examples: list[Example]) -> NDArray[np.int64]:
    counts = np.zeros(TOKENS, np.int64)
    for example in examples:
        for text in (example.prompt, example.answer_text):
            np.add.at(counts, np.array(encode(text), dtype=np.int64), 1)
    counts[RANKS:] = OWN_ROW_FROM  # control tokens always
    return np.flatnonzero(counts >= OWN_ROW_FROM)


def _refit(out: Path, sets: Sets, seed: int) -> None:
    """Fit verdicts and set the thresholds, on the weights as they are exported."""
    guard, _ = reload(out)
    fit_answers(guard, fresh_answers(sets.held), seed)
    calibrate(guard, sets.benign_prompts, sets.benign_answers)
    export_risk_heads(guard, out)


def evaluate(out: Path, data: Path, baseline: dict[str, linear.Linear]) -> list[Row]:
    guard, _ = reload(out)

    def by_guard(examples: Sequence[Example], kind: str) -> list[Verdict]:
        readings = read(guard, list(examples))
        with torch.inference_mode():
            if kind == "prompts":
                return [prompt_verdict(reading, guard.query_risk_level_head.weight) for reading in readings]
            return [answer_verdict(reading, guard.risk_level_head.weight) for reading in readings]

    def by_baseline(examples: Sequence[Example], kind: str) -> list[Verdict]:
        texts = [e.prompt if kind == "prompts" else e.answer_text for e in examples]
        return linear.verdicts(baseline[kind], texts)

    judges: dict[str, Judge] = {"embedded guard": by_guard, "linear baseline": by_baseline, **DUMMIES}
    rows = figures(judges, data)
    (out / "figures.json").write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    return rows


if __name__ == "__main__":
    random.seed(0)
    main()
