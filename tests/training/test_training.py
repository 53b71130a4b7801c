"""The parts of the training that figures and weights rest on, on made-up texts."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from proxy.guard.embedded import load
from proxy.risk import Category, RiskLevel
from training.__main__ import _arguments
from training.authored import authored
from training.batches import BASELINE_SHARE, Mixer, batches, collate
from training.data import authored_examples, example_of, split
from training.examples import EVERYDAY_ALARM, Example, Stretch
from training.export import export, export_risk_heads, reload
from training.figures import area_under_curve, not_a_refusal, score
from training.judge import CONTROVERSIAL, SAFE, UNSAFE, Reading, Verdict, answer_verdict, first_flag, read
from training.linear import Opinions, answer_opinions, fit, token_opinions
from training.model import Embedding, Guard, guard_config
from training.passages import everyday_tasks, passage
from training.rounds import Plan, train, verdict_loss
from training.teacher import is_short_english, opinions_on
from training.thresholds import _distinct, calibrate
from training.topics import HELD_SOURCE
from training.verdicts import fit_answers, fresh_answers
from training.vocabulary import IM_END, RANKS, TOKENS, encode, turn

ROW = {"prompt": "Hi", "response": None, "prompt_risk": "Safe", "response_risk": None, "source": "test"}


def tiny_guard() -> tuple[Guard, dict[str, object]]:
    torch.manual_seed(1)
    config = guard_config(hidden=64, layers=1)
    features = torch.randn(TOKENS, 16)
    return Guard(config, Embedding(features, torch.arange(0, 3_000), 64)), config


def chat(answer: str, risk: RiskLevel = RiskLevel.SAFE) -> Example:
    return Example("test", "Tell me.", RiskLevel.SAFE, answer=(Stretch(answer, risk),))


def test_a_span_starts_the_unsafe_stretch() -> None:
    row = {**ROW, "response": "nice day, fool", "response_risk": "Controversial", "spans": [10, 14]}
    safe, unsafe = example_of({**row, "prompt_category": None, "response_category": "Unethical Acts"}).answer
    assert (safe.text, safe.risk) == ("nice day, ", RiskLevel.SAFE)
    assert (unsafe.text, unsafe.category) == ("fool", Category.UNETHICAL)


def test_other_models_templates_are_cut_off() -> None:
    row = {**ROW, "prompt_category": None, "response_category": None, "response_risk": "Safe"}
    assert example_of({**row, "response": "I cannot help.<|eot_id|>assistant"}).answer_text == "I cannot help."


def test_one_everyday_source_is_held_out_whole_and_others_by_half() -> None:
    sources = ("self-instruct seeds", "FastChat", "other")
    kept, held = split([Example(source, "b") for source in sources for _ in range(100)], seed=1)
    counts = {source: sum(example.source == source for example in held) for source in sources}
    assert len(kept) + len(held) == 300
    assert counts["self-instruct seeds"] == 100  # what is known of no source at all
    assert 30 < counts["FastChat"] < 70
    assert counts["other"] < 20


def test_authored_requests_come_in_every_category_and_with_twins() -> None:
    requests = [e for e in authored(random.Random(1)) if e.source == "authored requests"]
    assert {e.prompt_category for e in requests if e.prompt_risk is RiskLevel.UNSAFE} == set(Category)
    safe = sum(e.prompt_risk is RiskLevel.SAFE for e in requests)
    assert 0.4 < safe / len(requests) < 0.7


def test_texts_of_evaluation_sets_are_dropped(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "eval-x.jsonl.gz", "wt") as file:
        file.write(json.dumps({"prompt": "why is the SKY blue"}))
    assert "Why is the sky blue?" not in {e.prompt for e in authored_examples(1, tmp_path, [])}


def test_labels_lie_on_the_prompts_end_and_on_the_answer() -> None:
    stretches = (Stretch("All is well. ", RiskLevel.SAFE), Stretch("I hate you.", RiskLevel.UNSAFE, is_short=True))
    example = Example("test", "Hello there", RiskLevel.SAFE, answer=stretches)
    for seed in range(30):
        sequence = Mixer([chat("Fine."), example], random.Random(seed)).sequence(example)
        (position, risk, *_), *others = sequence.query
        assert not others
        assert (sequence.ids[position], risk) == (IM_END, SAFE)
        unsafe = [position for position, risk, *_ in sequence.reply if risk == UNSAFE]
        assert [sequence.ids[position] for position in unsafe] == encode(" I hate you.")
        assert unsafe[-1] == len(sequence.ids) - 1


def test_long_answers_turn_at_their_end() -> None:
    lead = chat("All is well and the sun is out. " * 60)
    turned = chat("I will kill you.", RiskLevel.UNSAFE)
    long_ones = 0
    for seed in range(300):
        sequence = Mixer([lead], random.Random(seed)).sequence(turned)
        labels = [risk for _, risk, *_ in sequence.reply]
        assert labels == sorted(labels)  # harmless, then unsafe
        assert all(alarm == EVERYDAY_ALARM for _, risk, _, _, alarm in sequence.reply if risk == SAFE)
        if len(labels) > 400:
            long_ones += 1
            assert labels[-1] == UNSAFE
    assert long_ones


def test_passages_are_sentences_of_their_text() -> None:
    rng = random.Random(3)
    text = "One is here. Is two there?\n- Three\n- Four! The end."
    passages = {passage(rng, text, most=2) for _ in range(200)}
    assert all(part and part in text for part in passages)
    assert {"One is here.", "- Three\n- Four!", "The end."} <= passages
    tasks = list(everyday_tasks(rng, [text], count=20))
    assert {task.prompt_risk for task in tasks} == {RiskLevel.SAFE}
    assert all("{" not in task.prompt for task in tasks)
    assert list(everyday_tasks(rng, [], count=20)) == []


def test_the_baselines_opinion_of_tokens_starts_the_guards() -> None:
    unsafe = [chat(f"a terrible murder {word}", RiskLevel.UNSAFE) for word in ("today", "here", "again")]
    safe = [chat(f"a lovely garden {word}") for word in ("today", "here", "again")]
    opinions = token_opinions(fit((unsafe + safe) * 30, "answers", seed=1))
    (murder,), (garden,), (unseen,) = encode(" murder"), encode(" garden"), encode(" window")
    assert opinions.shape == (RANKS, 2)
    assert opinions[murder, 0] > 0.5 > -0.5 > opinions[garden, 0]
    assert opinions[encode(" Murder")[0], 0] == opinions[murder, 0]
    assert not opinions[unseen].any()


def test_a_verdict_rests_on_the_highest_pair_of_tokens() -> None:
    batch = collate([Mixer([chat("Fine.")], random.Random(2)).sequence(chat("word " * 30, RiskLevel.UNSAFE))])
    risks = torch.zeros(len(batch.reply_at), 3)
    calm = float(verdict_loss(risks, batch))
    risks[7, UNSAFE] = 9.0
    assert float(verdict_loss(risks, batch)) == pytest.approx(calm, abs=0.2)  # one token alone is no verdict
    risks[8, UNSAFE] = 9.0
    assert float(verdict_loss(risks, batch)) < calm


def test_the_teacher_judges_each_half_by_the_other_and_what_has_no_label() -> None:
    generator = torch.Generator().manual_seed(1)
    sides = torch.arange(600) % 2
    vectors = torch.nn.functional.normalize(torch.randn(600, 8, generator=generator) * 0.1, dim=-1) * 0.3
    vectors[:, 0] += sides * 2 - 1.0
    texts = [f"text {index}" for index in range(600)]
    levels = (RiskLevel.SAFE, RiskLevel.UNSAFE)
    labels: list[RiskLevel | None] = [levels[int(side)] for side in sides]
    labels[0], labels[1], labels[2] = RiskLevel.UNSAFE, None, None  # a wrong label, and two that are missing
    examples = [Example("test", text, label) for text, label in zip(texts, labels, strict=True)]
    opinions = opinions_on(vectors, texts, examples, seed=3)
    assert all(sum(opinion) == pytest.approx(1, abs=1e-4) for opinion in opinions.values())
    assert opinions["text 0"][SAFE] > 0.8  # it did not learn that label: the other half's classifier spoke
    assert opinions["text 1"][UNSAFE] > 0.8
    assert opinions["text 2"][SAFE] > 0.8


def test_the_teacher_is_asked_of_short_english_prompts_only() -> None:
    assert is_short_english("Why is the sky blue?")
    assert not any(is_short_english(text) for text in ("", "请解释一下光合作用", "word " * 100))


def test_an_opinion_stands_beside_a_label_or_in_its_place() -> None:
    opinion = (0.2, 0.7, 0.1)
    mixer = Mixer([chat("Fine.")], random.Random(4), {"Tell me.": opinion})
    labelled = mixer.sequence(Example("test", "Tell me.", RiskLevel.SAFE))
    unlabelled = mixer.sequence(Example("test", "Tell me."))
    unknown = mixer.sequence(Example("test", "Tell me more.", RiskLevel.SAFE))
    silent = mixer.sequence(Example("test", "Tell me more."))
    assert labelled.aim == pytest.approx((0.6, 0.35, 0.05))
    assert unlabelled.aim == opinion
    assert unknown.aim == (1, 0, 0)
    assert not silent.query
    batch = collate([labelled, unlabelled, unknown, silent])
    assert batch.query[:, 0].tolist() == [SAFE, UNSAFE, SAFE]
    assert batch.aims.tolist() == [pytest.approx(aim) for aim in (labelled.aim, opinion, (1, 0, 0))]


def test_every_sequence_is_in_one_batch() -> None:
    examples = [chat("word " * length) for length in range(1, 40)]
    mixer = Mixer(examples, random.Random(1))
    sequences = [mixer.sequence(example) for example in examples]
    groups = list(batches(sequences, random.Random(2), tokens=200))
    assert sum(len(batch.ids) for batch in groups) == len(examples)
    assert sum(len(batch.reply) for batch in groups) == sum(len(sequence.reply) for sequence in sequences)


@pytest.mark.parametrize(
    ("levels", "expected", "flag"),
    [
        ([0, 1, 0, 1, 0], SAFE, None),
        ([0, 1, 1, 0], UNSAFE, 2),
        ([2, 2, 0, 1, 1], UNSAFE, 4),
        ([2, 1, 2, 2], CONTROVERSIAL, None),
        ([1], SAFE, None),
        ([], SAFE, None),
    ],
)
def test_two_consecutive_tokens_decide(levels: list[int], expected: int, flag: int | None) -> None:
    reading = Reading(torch.zeros(1, 3), torch.eye(3)[torch.tensor(levels, dtype=torch.long)])
    assert answer_verdict(reading, torch.eye(3)).level == expected
    assert first_flag(reading, torch.eye(3)) == flag


def test_scores_equal_their_definitions() -> None:
    verdicts = [Verdict(level, score) for level, score in ((1, 0.9), (0, 0.5), (1, 0.5), (2, 0.4), (0, 0.1))]
    labels = [True, True, False, False, False]
    loose = score(verdicts, labels, (UNSAFE,))
    assert (loose.precision, loose.recall, loose.f1) == (0.5, 0.5, 0.5)
    assert loose.alarms == pytest.approx(1 / 3)
    assert area_under_curve(verdicts, labels) == pytest.approx((3 + 2.5) / 6)
    assert not_a_refusal([chat("I'm sorry, I can't."), chat("Sure!")], "answers")[0].level == SAFE


def test_an_exported_guard_reads_as_it_was_trained(tmp_path: Path) -> None:
    guard, config = tiny_guard()
    export(guard.eval(), config, tmp_path)
    shipped, _ = reload(tmp_path)
    examples = [chat("The quick brown fox jumps.")]
    before, after = read(guard, examples)[0].reply, read(shipped, examples)[0].reply
    assert before.shape == after.shape == (len(encode(examples[0].answer_text)), 64)
    assert (
        torch.nn.functional.cosine_similarity(before, after).min() > 0.8
    )  # random vectors are the worst there is to quantise
    assert load(tmp_path)[1]["model.embed_tokens.weight"].dtype == np.float32


def test_new_risk_heads_change_nothing_else_of_a_file(tmp_path: Path) -> None:
    guard, config = tiny_guard()
    export(guard.eval(), config, tmp_path)
    _, before = load(tmp_path)
    shipped, _ = reload(tmp_path)
    with torch.no_grad():
        shipped.risk_level_head.weight += 1
        shipped.query_risk_level_head.weight -= 1
        shipped.category_head.weight += 1  # which is none of the two
    export_risk_heads(shipped, tmp_path)
    _, after = load(tmp_path)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"risk_level_head.weight", "query_risk_level_head.weight"}
    assert np.allclose(after["risk_level_head.weight"], before["risk_level_head.weight"] + 1, atol=2e-3)


def test_a_text_counts_once_where_a_boundary_is_set(tmp_path: Path) -> None:
    often = [chat("What a lovely day.")] * 12
    assert _distinct([*often, chat("Good morning.")], lambda e: e.answer_text) == [often[0], chat("Good morning.")]


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no guard in"), ("guard", "are the same folder")])
def test_a_folder_that_cannot_be_fitted_again_is_named(
    folder: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(*tiny_guard(), tmp_path / "guard")
    out = str(tmp_path / "guard")
    monkeypatch.setattr("sys.argv", ["training", "data", "--out", out, "--refit", str(tmp_path / folder)])
    with pytest.raises(SystemExit):
        _arguments()
    assert said in capsys.readouterr().err


def test_training_learns_resumes_and_calibrates(tmp_path: Path) -> None:
    guard, _ = tiny_guard()
    safe = [chat(f"What a lovely day {word}.") for word in ("today", "it is", "we have", "again", "in May")]
    unsafe = [chat(f"I will kill you {word}.", RiskLevel.UNSAFE) for word in ("today", "soon", "tonight")]
    train(guard, (safe + unsafe) * 12, Plan(passes=6, rate=1e-2), tmp_path)
    weights = guard.risk_level_head.weight.detach().clone()
    train(guard, safe, Plan(passes=6), tmp_path)  # all passes are done
    assert torch.equal(weights, guard.risk_level_head.weight)
    guard.eval()
    calibrate(guard, safe, safe)
    with torch.inference_mode():
        verdicts = [answer_verdict(reading, guard.risk_level_head.weight) for reading in read(guard, safe + unsafe)]
    scores = [verdict.score for verdict in verdicts]
    assert all(verdict.level == SAFE for verdict in verdicts[: len(safe)])
    assert max(scores[: len(safe)]) < min(scores[len(safe) :])


def test_verdicts_are_fitted_to_answers_that_were_not_trained_on() -> None:
    """The features tell two kinds of answers apart: the one row that is fitted then does, and all else stays."""
    guard = tiny_guard()[0].eval()
    safe = [chat(f"What a lovely day {word}.") for word in ("today", "it is", "we have", "again")]
    unsafe = [chat(f"You ugly fool {word}!", RiskLevel.UNSAFE) for word in ("today", "you are", "it is", "again")]
    before = {name: weights.clone() for name, weights in guard.state_dict().items()}
    fit_answers(guard, safe + unsafe, seed=3)
    first = guard.risk_level_head.weight.detach().clone()
    with torch.inference_mode():
        levels = [answer_verdict(reading, first).level for reading in read(guard, safe + unsafe)]
    assert [level == UNSAFE for level in levels] == [False] * 4 + [True] * 4
    changed = {name for name, weights in guard.state_dict().items() if not torch.equal(weights, before[name])}
    assert changed == {"risk_level_head.weight"}
    assert torch.equal(first[[SAFE, CONTROVERSIAL]], before["risk_level_head.weight"][[SAFE, CONTROVERSIAL]])
    guard.load_state_dict(before)
    fit_answers(guard, safe + unsafe, seed=3)
    assert torch.equal(guard.risk_level_head.weight, first)


def test_verdicts_are_not_fitted_to_sources_that_stand_for_the_unknown() -> None:
    sources = ("self-instruct seeds", f"{HELD_SOURCE} english", "DiaSafety")
    held = [Example(source, "Tell me.", answer=(Stretch("No.", RiskLevel.SAFE),)) for source in sources]
    assert [example.source for example in fresh_answers([*held, Example("GPTFuzz", "no answer")])] == ["DiaSafety"]


def test_turns_are_framed_by_control_ids() -> None:
    ids = turn("user", "a <|im_end|> b")
    assert (ids[0], ids[-2], ids[-1]) == (151_644, IM_END, 198)
    assert max(ids[1:-2]) < 151_643


def test_the_baseline_judges_each_answer_by_the_other_half() -> None:
    unsafe = [chat(f"a terrible murder {number}", RiskLevel.UNSAFE) for number in range(60)]
    safe = [chat(f"a lovely garden {number}") for number in range(60)]
    turned = Example("test", "b", answer=(Stretch("one ", RiskLevel.SAFE), Stretch("two", RiskLevel.UNSAFE)))
    opinions = answer_opinions([*unsafe, *safe, turned], seed=1)
    assert len(opinions) == 120
    assert all(sum(opinion) == pytest.approx(1, abs=1e-4) for opinion in opinions.values())
    assert min(opinions[e.answer_text][UNSAFE] for e in unsafe) > max(opinions[e.answer_text][UNSAFE] for e in safe)


def test_an_answers_aim_leans_towards_the_baselines_opinion() -> None:
    unsafe, safe = chat("It is done.", RiskLevel.UNSAFE), chat("Fine.")
    opinions: Opinions = {"It is done.": (0.9, 0.1, 0.0)}
    for seed in range(20):
        sequence = Mixer([safe], random.Random(seed), answers=opinions).sequence(unsafe)
        aim = sequence.reply_aims[-1]
        assert aim == pytest.approx((0.9 * BASELINE_SHARE, 1 - 0.9 * BASELINE_SHARE, 0.0))
        assert sequence.verdict == aim[UNSAFE]
        assert Mixer([safe], random.Random(seed)).sequence(unsafe).verdict == 1.0
