"""What `weir --help` and `weir COMMAND --help` say below their flags."""

from proxy.benchmark.options import EXAMPLES as BENCH_EXAMPLES
from proxy.store.options import EXAMPLES as RECORDS_EXAMPLES

DESCRIPTION = "Weir: a streaming safety proxy for the OpenAI API. Every token is judged before it reaches the client."
EPILOG = """\
examples:
  weir demo                                             see it work; needs no key and no download
  weir init                                             write weir.toml, every key explained
  weir doctor --upstream http://127.0.0.1:11434/v1      is all in place?
  weir serve --upstream https://api.openai.com/v1       serve; apps set OPENAI_BASE_URL=http://127.0.0.1:8080/v1
  weir completion bash > ~/.local/share/bash-completion/completions/weir

exit status:
  0    all is well; for `moderate`: nothing is flagged
  1    something failed: the guard, the port, the network, a file
  2    wrong usage or settings, or input that cannot be read
  3    `moderate`: the conversation is flagged
  130  interrupted by Ctrl-C before it was done; `serve` ends with 0

Colours are for terminals only; NO_COLOR=1 turns them off there, too.
"""
SETTINGS_EPILOG = """\
Every setting has a key in weir.toml and a variable, WEIR_SECTION__KEY (WEIR_SERVER__PORT=9000).
Flags win over variables, which win over the file. `weir init` writes a file with every key.
"""
EXAMPLES = {
    "serve": """\
examples:
  weir serve --upstream https://api.openai.com/v1
  weir serve --upstream http://127.0.0.1:8000/v1 --guard Qwen/Qwen3Guard-Stream-0.6B --mode strict
  WEIR_UPSTREAM__API_KEY="$OPENAI_API_KEY" weir serve --upstream https://api.openai.com/v1 --port 9000 --workers 4

Then point an app at it: OPENAI_BASE_URL=http://127.0.0.1:8080/v1
Keep keys out of flags, which other users of the machine can see: WEIR_UPSTREAM__API_KEY is the place.
""",
    "moderate": """\
examples:
  weir moderate conversation.json
  echo '{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Hello."}]}' | weir moderate - --json
  weir moderate chats.jsonl more.json > judged.jsonl

Several conversations are judged at once and told as JSON lines, in their order; the exit status is the worst
(1, then 2, then 3).

The prompt is judged at the last user turn; assistant messages at the end are judged token by token.
""",
    "doctor": """\
examples:
  weir doctor --upstream https://api.openai.com/v1
  weir doctor --config /etc/weir.toml
""",
    "demo": """\
examples:
  weir demo
  weir demo --stay                    # then: OPENAI_BASE_URL=http://127.0.0.1:8080/v1
  weir demo --scripted-llm 9000       # then: weir serve --upstream http://127.0.0.1:9000/v1
""",
    "guard": """\
examples:
  weir guard serve --guard Qwen/Qwen3Guard-Stream-0.6B --guard-address unix:/run/weir/guard.sock
  WEIR_GUARD__TOKEN=... weir guard serve --guard-address tcp://10.0.0.7:9400
  weir serve --guard-address unix:/run/weir/guard.sock --upstream https://api.openai.com/v1
  weir guard up --replicas 4 --gpus 1 --device cuda --guard Qwen/Qwen3Guard-Stream-0.6B --address 10.0.0.5:6379
  weir guard status --address 10.0.0.5:6379

`weir serve` starts a guard of its own unless it is given an address; one guard can serve many of them.
""",
    "policy": """\
examples:
  weir policy check weir.toml
  weir policy check weir.toml --route /v1/responses --model gpt-5 --key alice
  weir policy check weir.toml --json

Nothing is started and nobody is asked: the tables say what the proxy would make of each verdict of a guard.
""",
    "key": """\
examples:
  weir key new alice

A key is random and shown once; weir.toml keeps its hash alone. To take it back, remove its table.
""",
    "export-embedded": """\
examples:
  weir export-embedded guard
  weir moderate conversation.json --guard guard

The folder has the layout of a released checkpoint; transformers opens its backbone and its tokenizer.
""",
    "eval": """\
examples:
  weir eval --guard Qwen/Qwen3Guard-Stream-0.6B --data response_loc.jsonl thinking.jsonl --picture timing.png
  weir eval --data prompts.jsonl.gz answers.jsonl.gz --out evaluation

A line of data is {"messages": [...], "label": "Unsafe"}, a line of the public Qwen3GuardTest, or
{"prompt": "...", "response": "...", "prompt_risk": "Unsafe", "response_risk": "Safe", "spans": [0, 10]}.
""",
    "init": """\
examples:
  weir init                 # then edit weir.toml, and: weir doctor
  weir init /etc/weir.toml
  weir init -               # to read it

Every key is there with its default and what it is for, commented out: the file as written changes nothing.
A file that is there is never overwritten.
""",
    "completion": """\
examples:
  weir completion bash > ~/.local/share/bash-completion/completions/weir
  weir completion zsh > ~/.zfunc/_weir      # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  weir completion fish > ~/.config/fish/completions/weir.fish
""",
    "bench": BENCH_EXAMPLES,
    "records": RECORDS_EXAMPLES,
}
