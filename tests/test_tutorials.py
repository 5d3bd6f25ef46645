"""The Python of the tutorials, the README and the docs runs as it is printed, from top to bottom."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pyro
import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("tutorials/*.md"), *ROOT.glob("README.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Python of a page, and how many lines of the page come before it."""

    offset: int
    source: str


def python_blocks(page: Path) -> list[Block]:
    """The fenced blocks marked ``python``; other fences are for reading only."""
    text = page.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, m.start(1)), m.group(1)) for m in FENCE.finditer(text)]


def run_page(page: Path) -> None:
    """Executes a page's blocks in one fresh namespace; a failure names the file and the line."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(page):
        # Blank lines in front make the line numbers of tracebacks those of the page.
        try:
            exec(compile("\n" * block.offset + block.source, str(page), "exec"), namespace)
        except Exception as error:
            pytest.fail(f"{page}:{line_of(error, page)}: {type(error).__name__}: {error}")


def line_of(error: Exception, page: Path) -> int | None:
    """The innermost line of the page that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(page):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(page)]
    return lines[-1] if lines else None


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader at the root of the project, but what they save lands in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        yield
    pyro.clear_param_store()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    matplotlib.use(before)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if python_blocks(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page_runs(page: Path) -> None:
    run_page(page)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("broken", "line"), [("1 / 0", 7), ("assert x == 2", 7), ("x = = 1", 7), ("def f(:", 7)]
)
def test_a_failure_names_the_file_and_the_line(tmp_path: Path, broken: str, line: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\nx = 1\n```\n\n```python\ny = x\n{broken}\n```\n")
    with pytest.raises(pytest.fail.Exception, match=rf"page\.md:{line}: "):
        run_page(page)


@pytest.mark.usefixtures("reader")
def test_blocks_share_a_namespace_and_other_fences_do_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = [1]\n```\n"
        "```bash\nrm x\n```\n"
        "```python\nx.append(2)\nassert x == [1, 2]\n```\n"
    )
    run_page(page)
    assert [block.offset for block in python_blocks(page)] == [1, 7]
