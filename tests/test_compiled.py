"""Whether the stages are compiled is told as it is; what is compiled can be, and is no older than its source."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from hatch_build import MODULES, ROOT, extensions, is_wanted
from proxy.compiled import is_compiled


def test_it_is_told_by_the_file_that_is_loaded() -> None:
    spec = find_spec("proxy.pump")
    assert spec is not None
    assert spec.origin is not None
    assert is_compiled() is spec.origin.endswith((".so", ".pyd"))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_compiled_can_be(module: str) -> None:
    """No coroutine: an exception of one came out of another. No record of msgspec's: it would lose what it is told."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    awaiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree) if isinstance(node, awaiting)]
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert not {ast.unparse(base) for base in bases} & {"msgspec.Struct", "Struct", "BaseModel", "WrittenChoices"}


@pytest.mark.parametrize("module", MODULES)
def test_a_final_tuple_says_its_type(module: str) -> None:
    """mypyc keeps one of known length unboxed, and took one of floats for a name that nobody has set."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    finals = [node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Final"]
    assert not [ast.unparse(node.target) for node in finals if isinstance(node.value, ast.Tuple)]


def test_no_subclass_of_a_compiled_class_is_plain_python() -> None:
    compiled = {name for module in MODULES for name in classes_in(ROOT / module)}
    plain = [path for room in ("proxy", "adapters") for path in (ROOT / room).rglob("*.py")]
    for path in plain:
        if path.relative_to(ROOT).as_posix() not in MODULES:
            assert not set().union(*classes_in(path).values()) & compiled, path


def test_what_is_compiled_is_of_the_source_as_it_stands() -> None:
    built = {path.name.partition(".")[0]: path.stat().st_mtime for path in extensions()}
    for module in MODULES:
        source = ROOT / module
        assert built.get(source.stem, source.stat().st_mtime) >= source.stat().st_mtime, "make compile, or uncompile"


def test_a_word_that_is_neither_yes_nor_no_is_refused() -> None:
    assert [is_wanted(said) for said in ({}, {"WEIR_COMPILE": ""}, {"WEIR_COMPILE": "0"}, {"WEIR_COMPILE": "1"})] == [
        *(False, False, False, True)
    ]
    with pytest.raises(ValueError, match="WEIR_COMPILE is 1 or 0, not 'yes'"):
        is_wanted({"WEIR_COMPILE": "yes"})


def classes_in(path: Path) -> dict[str, set[str]]:
    """The classes of a file, and what each of them subclasses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {node.name: {ast.unparse(base) for base in node.bases} for node in found}
