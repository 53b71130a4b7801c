"""The exported folder: transformers and our own loader open it, and both see the embedded guard."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from proxy.conversation import render
from proxy.export import ExportError, export, run
from proxy.guard import embedded
from proxy.guard.qwen3guard import Qwen3GuardStream
from proxy.retokenizer import encode
from proxy.vocabulary import FIRST_CONTROL_ID

TEXTS = (
    "I'd say it's fine; they'll come, we've SEEN what you're doing.",
    "今天的天气很好。 오늘은 날씨가 좋아서 วันนี้อากาศดี ",
    "Tối qua trời mưa; e\u0301\u0323 \u212b 가 ﬁ 👩‍👩‍👧‍👦 12.50\r\n\r\n\tx  = 1   \n",
    "\n\n    def f(x):\n\treturn x ** 2  # pi\n",
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Good morning!"},
    {"role": "user", "content": "How are you?\n"},
    {"role": "assistant", "content": "\n\nFine, and you?", "reasoning_content": "\nA greeting.\n"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With things in it already: the notes of its owner, and the index of other weights."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "notes.txt").write_text("mine")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert run(folder, force=True) == 0
    return folder


def test_whoever_may_read_one_of_its_files_may_read_them_all(folder: Path) -> None:
    """A container mounts the folder and is another user."""
    modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
    assert set(modes.values()) == {modes["notes.txt"]}


def test_our_loader_opens_it_with_the_verdicts_of_the_embedded_guard(folder: Path) -> None:
    ids = render(CHAT, window=1024).ids
    rows = []
    for name in ("embedded", str(folder)):
        result, state = Qwen3GuardStream.from_pretrained(name).stream_moderate_from_ids(ids, "assistant", None)
        rows.append((result["risk_level"], result["category"], result["risk_prob"]))
        assert state is not None
    assert rows[0] == rows[1]


def test_transformers_opens_the_backbone_with_every_tensor(folder: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(folder))
    _, tensors = embedded.load()
    backbone = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    found = model.state_dict()
    assert found.keys() == backbone.keys()
    assert all(torch.equal(found[name], torch.from_numpy(value)) for name, value in backbone.items())


def test_the_tokenizer_gives_our_ids(folder: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for opener in (AutoTokenizer, PreTrainedTokenizerFast):
        tokenizer: Any = opener.from_pretrained(str(folder))
        for text in TEXTS:
            assert tokenizer(text)["input_ids"] == encode(text)
            assert tokenizer.decode(encode("plain, é")) == "plain, é"


def test_the_chat_template_gives_our_prompts(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    plain = [{key: message[key] for key in ("role", "content")} for message in CHAT]
    for messages in (CHAT, plain, CHAT[:2], CHAT[1:4], CHAT[:3]):
        assert tokenizer.apply_chat_template(messages)["input_ids"] == render(messages, window=1024).ids
    asked = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_the_readme_says_demo_grade(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert "DEMO GRADE" in text
    card = embedded.FOLDER / "MODEL_CARD.md"
    assert not card.exists() or text.endswith(card.read_text(encoding="utf-8"))


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path, force=False) == 2
    assert "is not empty; pass --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ExportError, match="is a file"):
        export(tmp_path / "notes.txt", force=True)


def test_force_writes_beside_what_is_there(folder: Path) -> None:
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == {"notes.txt", *names}


def test_each_entry_but_the_bytes_has_one_merge(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_bytes())["model"]
    joined = [model["vocab"][left + right] for left, right in model["merges"]]
    assert joined == list(range(256, FIRST_CONTROL_ID))
    assert all(left in model["vocab"] and right in model["vocab"] for left, right in model["merges"])


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "guard", force=False) == 1
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'file' / 'guard'} cannot be written: Not a directory.\n"
