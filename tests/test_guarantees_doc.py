"""docs/guarantees.md names the tests that carry each guarantee: they must be there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (\d+)\. (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
GUARANTEES = [
    "Ordered",
    "Unique",
    "Complete or loud",
    "Exact start",
    "Resumable",
    "Bookmarks are true",
    "Fair and bounded",
    "OK means complete",
    "Expiry",
    "Durable",
    "Isolated",
]


def names_of_tests() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py"))
    functions = (node for tree in trees for node in ast.walk(tree))
    return {node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_guarantee_has_a_section() -> None:
    assert [(int(number), name) for number, name, _ in SECTIONS] == list(enumerate(GUARANTEES, 1))


@pytest.mark.parametrize(("name", "text"), [(name, text) for _, name, text in SECTIONS], ids=GUARANTEES)
def test_a_guarantee_says_what_is_not_promised_and_has_tests(name: str, text: str) -> None:
    assert "\nNot promised: " in text
    carried_by = re.findall(r"`(test_\w+)`", text.partition("\nTests: ")[2])
    assert carried_by, f"no test carries {name}"
    assert set(carried_by) <= names_of_tests()
