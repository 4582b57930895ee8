"""Every regular expression in the package takes time in proportion to its text, however the text is made."""

import ast
import importlib
import itertools
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest

import vmnet_pipeline

SOURCE = Path(vmnet_pipeline.__file__).parent
FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
OF_THE_USER = {("ingestion/grouping.py", "pattern"), ("params/ingestion.py", "self.group_regex")}
"""Patterns of the settings: whoever writes those runs the program."""
N = 2000
GROWTH, STEPS = 4, 3
MOST = 3.0 * GROWTH
"""Time that may grow by with the text; by 4 ** 2 = 16 if it grew with its square."""
NOISE_S = 0.01


def find_patterns():
    """(place, pattern, flags, methods) of every call of `re` in the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        names = {node.value: ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if node.func.attr not in FUNCTIONS or ast.unparse(node.func.value) != "re":
                continue
            argument = node.args[0]
            if (path.relative_to(SOURCE).as_posix(), ast.unparse(argument)) in OF_THE_USER:
                continue
            pattern = argument.value if isinstance(argument, ast.Constant) else put_together(path, argument)
            flags = tuple(
                part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and part.attr.isupper()
            )
            methods = find_methods(text, names.get(node, "")) if node.func.attr == "compile" else {node.func.attr}
            yield f"{path.relative_to(SOURCE)}:{node.lineno}", pattern, flags, methods


def find_methods(text, name):
    """What a compiled pattern is used for in its module; matching, where that cannot be seen."""
    return {method for method in FUNCTIONS if name and f"{name}.{method}(" in text} or {"match"}


def put_together(path, argument):
    """A pattern that is made of names of its module."""
    module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    return eval(compile(ast.Expression(argument), str(path), "eval"), vars(module))  # noqa: S307 - from our own source


def make_texts(pattern, n):
    """Runs of what the pattern looks for, and what spoils a match at their end."""
    letters = sorted(
        {letter for letter in pattern if letter not in "\\()[]{}?*+|^$"} | {"a", "0", " ", "/", "'", ".", "\n"}
    )
    words = sorted(set(re.findall(r"[A-Za-z_:=$-]{3,}", pattern)))
    letters = letters[:: max(1, len(letters) // 20)]
    units = letters + words + ["".join(pair) for pair in itertools.product("a0 /'\"", repeat=2)]
    for unit in units:
        run = unit * (n // len(unit) + 1)
        for before in ("", "'", *words[:1]):
            for after in ("", "!"):
                yield f"{before}{run[:n]}{after}"


def measure(function, text, is_bytes=False):
    text = text.encode() if is_bytes else text
    began = time.thread_time()
    function(text)
    return time.thread_time() - began


def find_slow(compiled, source, methods, n=N):
    """A text whose growth makes the pattern slower than in proportion; None for none."""
    is_bytes = isinstance(source, bytes)
    source = source.decode("latin-1") if is_bytes else source
    for method in sorted(methods):
        function = getattr(compiled, method if method in ("match", "fullmatch") else "findall")
        for shorter, longer in zip(make_texts(source, n), make_texts(source, n * GROWTH), strict=True):
            long_s = measure(function, longer, is_bytes)
            if long_s < NOISE_S:
                continue
            short_s = min(measure(function, shorter, is_bytes) for _ in range(STEPS))
            long_s = min([long_s, *(measure(function, longer, is_bytes) for _ in range(STEPS - 1))])
            if long_s > NOISE_S and long_s > MOST * short_s:
                return method, longer[:40], short_s, long_s
    return None


PATTERNS = list(find_patterns())


def test_patterns_are_found():
    places = [place for place, *_ in PATTERNS]
    assert len(places) >= 10
    assert any(place.startswith("serving/middleware.py") for place in places)


@pytest.mark.parametrize(("place", "pattern", "flags", "methods"), PATTERNS, ids=[place for place, *_ in PATTERNS])
def test_a_pattern_is_linear(place, pattern, flags, methods):
    compiled = re.compile(pattern, sum(getattr(re, flag) for flag in flags))
    assert find_slow(compiled, pattern, methods) is None


@pytest.mark.parametrize(
    ("pattern", "n"),
    [
        (r"""'[^']*/[^']*'|"[^"]*/[^"]*"|(?<![\w>])(?:~|\.{0,2})/[^\s'",;()]*""", N),  # a scrubber of paths
        (r"\s*(?P<column>[^<>=!]+?)\s*(?P<operator><=|>=|!=|=|<|>)\s*(?P<value>.*?)\s*", 60),  # a condition
    ],
)
def test_a_pattern_that_is_not_is_found(pattern, n):
    assert find_slow(re.compile(pattern), pattern, {"sub", "fullmatch"}, n) is not None


@pytest.mark.parametrize("text", [" " * 60_000 + "x", "a" * 60_000 + "!", "a =" + " " * 60_000, "<" * 60_000])
def test_conditions_are_read_in_one_pass(text):
    from vmnet_pipeline.errors import SearchIndexError
    from vmnet_pipeline.search.filters import parse_filter

    def read(text):
        with suppress(SearchIndexError):
            parse_filter(text)

    short_s, long_s = measure(read, text[: len(text) // GROWTH]), measure(read, text)
    assert long_s < max(NOISE_S, MOST * short_s)
