"""Who may import whom, how large a room may be, and that each has its tests. House rules, kept by machine."""

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("proxy", "adapters") for path in (ROOT / folder).rglob("*.py"))
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50

# Rooms without I/O and without a model: a test of them needs values only.
PURE = {
    "admin_settings",
    "annotations", "auth_settings", "benchmark.arrivals", "benchmark.figures", "benchmark.options",
    "benchmark.search", "benchmark.sizes", "channel", "channels", "chat_request", "choices", "completion_request",
    "config", "config_file", "console.page", "console.search", "conversation", "dialects", "doors", "error_bodies",
    "errors", "escapes",
    "evaluation.datasets", "evaluation.metrics", "evaluation.transforms", "folding", "framing", "gate",
    "guard_settings",
    "hold_times", "identity", "judge", "key_limits",
    "message_request", "moderation_request", "normalizer", "passthrough", "policies", "policy",
    "policy_settings", "pretoken", "pump", "records", "reports", "request_body", "request_fields",
    "response_request", "retokenizer", "risk", "server_settings", "setting_names", "setting_types", "settings",
    "settling", "splitter", "sse", "stored_request", "stream", "surrogates", "telemetry.answer", "telemetry.context",
    "telemetry.endpoint",
    "telemetry.providers", "telemetry.request", "telemetry.spans", "telemetry_settings", "transcript",
    "upstream_headers", "view", "vocabulary",
}  # fmt: skip
AIOHTTP = {
    f"proxy.{name}"
    for name in (
        "admin",
        "app",
        "chunk_writer",
        "client_writer",
        "connections",
        "console.routes",
        "demo",
        "doctor",
        "entrance",
        "token_handlers",
        "verdict_handlers",
        "guard.sglang",
        "handlers",
        "in_parts",
        "incoming",
        "model_handlers",
        "passthrough_handlers",
        "serving",
        "upload",
        "replies",
        "unpacking",
        "worker",
    )
}
TORCH = {
    f"proxy.guard.{name}"
    for name in (
        "answers", "attention", "int8", "loader", "model", "paged_model", "paged_runner", "ragged", "random_weights",
        "remote_code", "runner", "slab", "vllm_model",
    )
} | {"proxy.benchmark.baselines"}  # fmt: skip
# What may be imported late: whole optional parts, and what would make `weir --help` or a worker wait.
LATE = {
    "openai",
    "proxy.benchmark.baselines",
    "proxy.benchmark.command",
    "proxy.demo",
    "proxy.doctor",
    "proxy.evaluation.command",
    "proxy.evaluation.picture",
    "proxy.export",
    "proxy.fleet_command",
    "proxy.guard.cluster",
    "proxy.guard.paged_runner",
    "proxy.guard.qwen3guard",
    "proxy.guard.remote_code",
    "proxy.guard.sglang",
    "proxy.guard.service",
    "proxy.guard.supervisor",
    "proxy.guard.vllm_engine",
    "proxy.guards",
    "proxy.store.command",
    "proxy.store.postgres",
    "proxy.telemetry.otlp",
    "uvloop",
    "proxy.moderations",
    "proxy.policy_check",
    "proxy.serving",
    "proxy.workers",
}
# Files in which there is nothing to test.
UNTESTED = {
    "proxy/__main__.py": "calls main()",
    "proxy/guard/__init__.py": "a lazy import",
    "proxy/guard/protocol.py": "declarations",
    "proxy/console/shown.py": "declarations",
    "proxy/store/base.py": "declarations",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_in(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each imported module, as far as its name tells: `from proxy import risk` gives proxy.risk."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" for alias in node.names]
            inside = [name for name in names if name in MODULES]
            yield from ((name, node) for name in inside or [base])


@cache
def imported(module: str) -> set[str]:
    return {name for name, _ in imports_in(tree_of(MODULES[module]))}


@cache
def reachable(module: str) -> set[str]:
    """All that importing `module` imports, packages on the way included; what is imported late is not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            functions = [node for node in ast.walk(tree_of(MODULES[name])) if is_function(node)]
            late = {id(node) for function in functions for _, node in imports_in(function)}
            typing_only = {id(node) for block in type_checking_blocks(name) for _, node in imports_in(block)}
            now = [found for found, node in imports_in(tree_of(MODULES[name])) if id(node) not in late | typing_only]
            waiting += [".".join(found.split(".")[: n + 1]) for found in now for n in range(found.count(".") + 1)]
    return seen


def type_checking_blocks(module: str) -> list[ast.If]:
    blocks = [node for node in ast.walk(tree_of(MODULES[module])) if isinstance(node, ast.If)]
    return [node for node in blocks if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def top(name: str) -> str:
    return name.split(".")[0]


def test_adapters_import_the_standard_library_and_one_for_json_only() -> None:
    for module in MODULES:
        if top(module) == "adapters":
            foreign = {
                name for name in imported(module) if top(name) not in {"adapters", "msgspec", *sys.stdlib_module_names}
            }
            assert not foreign, f"{module} imports {foreign}"


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_rooms_reach_no_network_no_loop_and_no_model(room: str) -> None:
    if (module := f"proxy.{room}") not in MODULES:
        pytest.fail(f"{module} is listed as a pure room, but does not exist")
    assert not imported(module) & {"aiohttp", "asyncio", "torch", "socket", "threading"}
    first_party = {name for name in reachable(module) if name in MODULES}
    outside = {top(name) for name in first_party for name in imported(name)} & {"aiohttp", "torch"}
    assert not outside, f"{module} reaches {outside}"


def test_aiohttp_and_torch_live_in_few_rooms() -> None:
    for package, rooms in (("aiohttp", AIOHTTP), ("torch", TORCH)):
        importers = {module for module in MODULES if package in {top(name) for name in imported(module)}}
        assert importers <= rooms, f"{importers - rooms} import {package}"


def test_the_guard_knows_nothing_of_the_proxy_but_risks() -> None:
    for module in MODULES:
        if f"{module}.".startswith("proxy.guard."):
            inside = {name for name in imported(module) if top(name) in {"proxy", "adapters"}}
            foreign = {name for name in inside if name != "proxy.risk" and not f"{name}.".startswith("proxy.guard.")}
            assert not foreign, f"{module} imports {foreign}"


def test_imports_are_absolute_and_at_the_top() -> None:
    for module, path in MODULES.items():
        assert not [name for name in imported(module) if name.startswith(".")], f"{module} imports relatively"
        functions = [node for node in ast.walk(tree_of(path)) if is_function(node)]
        late = {name for function in functions for name, _ in imports_in(function)}
        assert late <= LATE, f"{module} imports {late - LATE} inside a function"


def test_no_two_rooms_import_each_other() -> None:
    for module in MODULES:
        for name in imported(module) & MODULES.keys() - {module}:
            # A package's own __init__ may name its parts; they may not import from it.
            assert module not in imported(name) or module.startswith(f"{name}."), f"{module} and {name}"


def test_the_proxy_runs_without_torch() -> None:
    rooms = ("proxy.cli", "proxy.app", "proxy.worker", "proxy.workers", "proxy.stream", "proxy.guard.scheduler")
    code = "".join(f"import {room}, sys; assert 'torch' not in sys.modules, '{room}'\n" for room in rooms)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nobody_else_owns_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in ("proxy", "adapters"):
        assert set(owners.get(package, [])) <= {"weir-proxy"}  # an editable install lists none


def test_every_source_file_has_its_test_file() -> None:
    missing = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name in UNTESTED or not any(is_function(node) for node in ast.walk(tree_of(path))):
            continue
        expected = expected_tests(path)
        if not any(test.exists() for test in expected):
            missing.append(f"{name} -> {expected[0].relative_to(ROOT)}")
    assert not missing, "source files without tests:\n" + "\n".join(missing)


def expected_tests(path: Path) -> list[Path]:
    """proxy/guard/model.py -> tests/guard/test_model.py; a package's own code may be tested beside its folder."""
    inside = path.relative_to(ROOT)
    folder = ROOT / "tests" / (inside.parent.relative_to("proxy") if inside.parts[0] == "proxy" else inside.parent)
    if path.stem != "__init__":
        return [folder / f"test_{path.stem}.py"]
    return [folder / f"test_{folder.name}.py", folder.parent / f"test_{folder.name}.py"]


def test_files_and_functions_stay_small() -> None:
    too_long = []
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        spans = [("the file", 1, len(lines), MAX_FILE_LINES)]
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                spans.append((f"{node.name}()", node.lineno, node.end_lineno or node.lineno, MAX_FUNCTION_LINES))
        for name, first, last, most in spans:
            is_excused = any("# long:" in line for line in lines[max(0, first - 2) : first + 5])
            if last - first + 1 > most and not is_excused:
                too_long.append(f"{path.relative_to(ROOT)}: {name} has {last - first + 1} lines, more than {most}")
    assert not too_long, "split these, or say why not with a `# long:` comment:\n" + "\n".join(too_long)
