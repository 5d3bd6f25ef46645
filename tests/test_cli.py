"""The command line answers, teaches, and says every mistake in one sentence with exit code 2."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from causalppl.cli import app

ROOT = Path(__file__).parents[1]
JOE = """
import pyro
import pyro.distributions as dist

def model():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    h = pyro.sample("h", dist.Normal(0.5 * x, 1.0))
    return pyro.sample("y", dist.Normal(0.7 * x + 0.4 * h, 1.0))

def other():
    return pyro.sample("only", dist.Normal(0.0, 1.0))

def data():
    return (), {"x": 0.5, "h": 1.0, "y": 1.5}
"""
GROUPS = """
import torch, pyro
import pyro.distributions as dist

def model(n):
    with pyro.plate("people", n):
        x = pyro.sample("x", dist.Bernoulli(0.5))
        y = pyro.sample("y", dist.Normal(torch.arange(n) * (x + 1.0), 1.0))

def data():
    x = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return (4,), {"x": x, "y": torch.arange(4) * (x + 1.0)}
"""


@pytest.fixture(autouse=True)
def same_imports() -> Generator[None]:
    """Running a model file makes its folder importable, as Python itself does."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("joe", "groups", "program"):
            del sys.modules[name]


@pytest.fixture
def joe(tmp_path: Path) -> Path:
    return write(tmp_path / "joe.py", JOE)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def ask(*words: object, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of ``causalppl counterfactual``."""
    found = CliRunner().invoke(app, ["counterfactual", *map(str, words)])
    assert found.exit_code == code, (found.stdout, found.stderr, found.exception)
    return found.stdout, found.stderr


def mistake(*words: object) -> str:
    """The one sentence that a mistake gets."""
    said, sentence = ask(*words, code=2)
    assert said == ""
    assert sentence.count("\n") == 1 and sentence.startswith("causalppl: error: ")
    assert "Traceback" not in sentence and "Trace Shapes" not in sentence
    return sentence


def rows(table: str) -> dict[str, list[str]]:
    """First column to the other cells, which stand at least two blanks apart."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_joe_would_have_scored_1_90(joe: Path) -> None:
    said, _ = ask(joe, "--do", "h=2", "--outcome", "y")
    table = rows(said)
    assert table["factual"] == ["1.50"]
    assert table["h=2"] == ["1.90"]
    assert table["h=2 minus factual"] == ["0.400"]
    assert (
        "Exact" in said and "affine" in said
    )  # the method, and the assumption that couples worlds


def test_evidence_can_be_given_and_overrides_the_files(joe: Path) -> None:
    said, _ = ask(joe, "--do", "h=2", "--outcome", "y", "--given", "y=0.5")
    assert rows(said)["h=2"] == ["0.900"]


def test_two_worlds_can_be_compared(joe: Path) -> None:
    said, _ = ask(joe, "--do", "h=2", "--do", "x=1", "--versus", "h=0", "--outcome", "y")
    table = rows(said)
    assert table["h=2, x=1"] == ["2.25"]
    assert table["h=2, x=1 minus h=0"] == ["1.15"]


def test_units_can_be_selected_by_what_was_so_in_fact(tmp_path: Path) -> None:
    groups = write(tmp_path / "groups.py", GROUPS)
    said, _ = ask(groups, "--do", "x=1", "--outcome", "y", "--among", "x=0")
    assert rows(said)["world"] == ["all 4 people", "2 people with x=0"]
    assert rows(said)["x=1 minus factual"] == ["0.250", "0.500"]
    said, _ = ask(groups, "--do", "x=0", "--outcome", "y", "--among", "x!=0", "--among", "y>5")
    assert rows(said)["world"][1] == "1 people with x!=0, y>5"
    assert rows(said)["x=0 minus factual"][1] == "-3"


def test_uncertainty_is_an_interval_and_an_event_a_probability(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", JOE.replace("def data", "def unused"))
    said, _ = ask(
        program, "--do", "x=1", "--outcome", "y", "--num-samples", "4000", "--seed", "0", "--quiet"
    )
    mean, low, high = map(float, re.findall(r"-?\d+\.\d+", rows(said)["x=1"][0]))
    spread = (1 + 0.4**2) ** 0.5
    assert abs(mean - 0.9) < 4 * spread / 4000**0.5
    assert abs(low - (0.9 - 1.96 * spread)) < 0.2 and abs(high - (0.9 + 1.96 * spread)) < 0.2
    said, _ = ask(
        ROOT / "models/firing_squad.py", "--do", "rifleman_a=0", "--outcome", "death", "--seed", "0"
    )
    assert (
        0.8 < float(rows(said)["rifleman_a=0"][0]) < 0.92
    )  # 6/7, and no interval of zeros and ones


def test_the_same_seed_gives_the_same_table(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", JOE.replace("def data", "def unused"))
    words = (program, "--do", "x=1", "--outcome", "y", "--num-samples", "50", "--quiet")
    assert ask(*words, "--seed", "3") == ask(*words, "--seed", "3") != ask(*words, "--seed", "4")


def test_another_function_of_the_file_can_be_the_program(joe: Path) -> None:
    write(joe, JOE.replace("def data", "def unused"))
    said, _ = ask(f"{joe}:other", "--do", "only=1", "--outcome", "only", "--quiet")
    assert rows(said)["only=1"] == ["1"]


def test_a_file_may_import_what_lies_beside_it_and_from_its_package(tmp_path: Path) -> None:
    write(tmp_path / "beside_it.py", "COEFFICIENT = 0.5\n")
    program = write(tmp_path / "program.py", "from beside_it import COEFFICIENT\n" + JOE)
    ask(program, "--do", "h=2", "--outcome", "y")
    package = tmp_path / "zoo_of_mine"
    package.mkdir()
    write(package / "__init__.py", "")
    write(package / "shared.py", "COEFFICIENT = 0.5\n")
    ask(
        write(package / "animal.py", "from .shared import COEFFICIENT\n" + JOE),
        "--do",
        "h=2",
        "--outcome",
        "y",
    )


def test_picture_and_draws_are_saved(joe: Path, tmp_path: Path) -> None:
    import xarray

    picture, draws = tmp_path / "out.png", tmp_path / "out.nc"
    said, _ = ask(joe, "--do", "h=2", "--outcome", "y", "--plot", picture, "--save", draws)
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in said.replace("\n", "")
    with xarray.open_dataset(draws, engine="h5netcdf") as saved:
        assert saved["y"].sel(world="h=2").item() == pytest.approx(1.9, abs=1e-4)
    groups = write(tmp_path / "groups.py", GROUPS)
    ask(groups, "--do", "x=1", "--outcome", "y", "--plot", tmp_path / "people.svg")
    assert (
        "people 0" in (tmp_path / "people.svg").read_text()
        or (tmp_path / "people.svg").stat().st_size > 10_000
    )


def test_help_teaches_with_an_example() -> None:
    found = CliRunner().invoke(
        app, ["counterfactual", "--help"], env={"COLUMNS": "100", "TERM": "dumb"}
    )
    text = " ".join(found.stdout.split())
    assert found.exit_code == 0
    assert "causalppl counterfactual models/smoking_cessation.py" in text
    assert "data()" in text and "--among quit=0" in text
    for option in (
        "--do",
        "--versus",
        "--given",
        "--among",
        "--outcome",
        "--plot",
        "--save",
        "--seed",
    ):
        assert option in text


def test_version() -> None:
    import causalppl

    assert CliRunner().invoke(app, ["--version"]).stdout == f"causalppl {causalppl.__version__}\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{joe}x.py", "--do", "h=2", "--outcome", "y"], ["there is no file"]),
        (["{folder}/jo.py", "--do", "h=2", "--outcome", "y"], ["did you mean", "joe.py"]),
        (["{joe}:modle", "--do", "h=2", "--outcome", "y"], ["'modle'", "joe.py:model"]),
        (["{joe}", "--do", "h", "--outcome", "y"], ["--do: 'h'", "h=1"]),
        (["{joe}", "--do", "h=two", "--outcome", "y"], ["--do: 'h=two'", "number"]),
        (["{joe}", "--do", "h=1", "--do", "h=2", "--outcome", "y"], ["'h' is given twice"]),
        (["{joe}", "--do", "homework=2", "--outcome", "y"], ["no site 'homework'", "'h'"]),
        (["{joe}", "--do", "h=nan", "--outcome", "y"], ["h", "NaN"]),
        (["{joe}", "--do", "h=1,2", "--outcome", "y"], ["'h'", "shape"]),
        (["{joe}", "--do", "h=2", "--outcome", "yy"], ["no site 'yy'", "did you mean 'y'"]),
        (["{joe}", "--do", "h=2", "--versus", "h=2", "--outcome", "y"], ["--versus", "same world"]),
        (["{joe}", "--do", "h=2", "--outcome", "y", "--given", "z=1"], ["no site 'z'"]),
        (["{joe}", "--do", "h=2", "--outcome", "y", "--among", "x"], ["--among: 'x'"]),
        (["{joe}", "--do", "h=2", "--outcome", "y", "--among", "x=1"], ["x=1", "plate"]),
        (["{joe}", "--do", "h=2", "--outcome", "y", "--plot", "out.xyz"], ["out.xyz", ".png"]),
        (["{joe}", "--do", "h=2", "--outcome", "y", "--save", "{folder}/no/o.nc"], ["no folder"]),
        (["{groups}", "--do", "x=1", "--outcome", "y", "--among", "x=3"], ["x=3 holds for none"]),
        (["{groups}", "--do", "x=0.5", "--outcome", "y"], ["'x'", "support"]),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], parts: list[str], joe: Path) -> None:
    groups = write(joe.parent / "groups.py", GROUPS)
    sentence = mistake(*(w.format(joe=joe, folder=joe.parent, groups=groups) for w in words))
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "import no_such_package_at_all\n",
            ["line 1", "ModuleNotFoundError", "no_such_package_at_all"],
        ),
        ("x = 1\ndef model(:\n", ["line 2", "SyntaxError"]),
        ("x = 1\n\nraise SystemExit(3)\n", ["line 3", "SystemExit"]),
        ("def program():\n    pass\n", ["defines no program 'model'", "program.py:program"]),
        ("model = 3\n", ["defines no program 'model'", "def model(...)"]),
        ("def model(x, y):\n    pass\n", ["model(x, y)", "the 0 arguments"]),
        ("def model():\n    pass\n\ndef data():\n    return {}\n", ["(args, evidence)"]),
        (
            "def model():\n    pass\n\ndef data():\n    return 1 / 0\n",
            ["data()", "line 5", "ZeroDivisionError"],
        ),
        (JOE.replace("0.7 * x", "0.7 * x + [][0]"), ["line 8", "IndexError"]),
        (
            JOE.replace("0.7 * x", "float('much')"),
            ["line 8", "ValueError: could not convert string to float: 'much'\n"],
        ),
        (JOE.replace('{"x"', '{"xx"'), ["no site 'xx'"]),
        (
            JOE.replace("h = pyro", "import torch; x = x + torch.rand(()); h = pyro"),
            ["not deterministic", "torch.rand"],
        ),
    ],
)
def test_mistakes_in_the_file_name_the_error_and_its_line(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    program = write(tmp_path / "program.py", text)
    sentence = mistake(program, "--do", "h=2", "--outcome", "y")
    assert "program.py" in sentence or "site" in sentence
    for part in parts:
        assert part in sentence


def test_wrong_names_are_found_before_the_inference(tmp_path: Path) -> None:
    runs = JOE.replace(
        "def model():", "def model():\n    with open(__file__ + '.runs', 'a') as f: f.write('.')"
    )
    program = write(tmp_path / "program.py", runs.replace('"y": 1.5', ""))
    mistake(program, "--do", "h=2", "--outcome", "yy", "--num-samples", "100000")
    assert len(Path(f"{program}.runs").read_text()) < 10


def test_a_traceback_is_shown_on_request_only(tmp_path: Path) -> None:
    program = write(tmp_path / "program.py", JOE.replace("0.7 * x", "0.7 * x + [][0]"))
    _, said = ask(program, "--do", "h=2", "--outcome", "y", "--traceback", code=2)
    assert "Traceback" in said and "line 8: IndexError" in said.splitlines()[-1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The installed command, as a person runs it."""
    command = [str(Path(sys.executable).parent / "causalppl"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.slow
def test_the_installed_command_answers_and_fails_in_one_sentence(joe: Path) -> None:
    found = run("counterfactual", str(joe), "--do", "h=2", "--outcome", "y")
    assert found.returncode == 0 and rows(found.stdout)["h=2"] == ["1.90"]
    for words in (
        ["counterfactual", str(joe), "--do", "h=2"],
        ["nonsense"],
        ["counterfactual", str(joe), "--what"],
    ):
        found = run(*words)
        assert found.returncode == 2 and found.stdout == ""
        assert found.stderr.count("\n") == 1 and found.stderr.startswith("causalppl: error: ")
    found = run("counterfactual", str(joe), "--do", "h=x", "--outcome", "y")
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert run("counterfactual", "--help").returncode == 0


@pytest.mark.slow
def test_progress_goes_to_standard_error_and_can_be_silenced(tmp_path: Path) -> None:
    # Six parameters are too many for draws from the prior alone: there is something to wait for.
    chains = JOE.replace("def model():", "def model():\n    w = pyro.sample('w', weights)").replace(
        "0.4 * h", "0.4 * h + w.sum()"
    )
    weights = "weights = dist.Normal(0.0, 1.0).expand([6]).to_event(1)"
    program = write(
        tmp_path / "program.py", chains.replace("\ndef model", f"\n{weights}\n\ndef model")
    )
    words = ("counterfactual", str(program), "--do", "h=2", "--outcome", "y", "--num-samples", "50")
    silent, shown = run(*words, "--quiet"), run(*words)
    assert silent.returncode == shown.returncode == 0
    assert silent.stderr == "" and "weighed" in shown.stderr
    assert rows(shown.stdout)["h=2"] == rows(silent.stdout)["h=2"] == ["1.90"]


# --- query and graph --------------------------------------------------------------------------------------------------

COIN = """
import pyro
import pyro.distributions as dist

def model():
    u = pyro.sample("u", dist.Bernoulli(0.5))
    x = pyro.sample("x", dist.Bernoulli(0.25 + 0.5 * u))
    return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
"""


@pytest.fixture
def coin(tmp_path: Path) -> Path:
    return write(tmp_path / "program.py", COIN)


def causalppl(*words: object, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of ``causalppl``."""
    found = CliRunner().invoke(app, [*map(str, words)])
    assert found.exit_code == code, (found.stdout, found.stderr, found.exception)
    return found.stdout, found.stderr


@pytest.mark.filterwarnings("always::causalppl.errors.CouplingWarning")
def test_a_query_is_answered_in_a_table(coin: Path) -> None:
    said, warned = causalppl("query", coin, "P(y[x=0]=0 | x=1, y=1)")
    # monotone: of .75 with y[1]=1 a share of .5 has y[0]=0
    assert rows(said)["0.666667"] == ["exact", "3, imagining", "graph and couplings"]
    assert "inverse_cdf" in said and warned.startswith("causalppl: warning: query: the answer")
    said, warned = causalppl("query", coin, "E[y | do(x=1)]")
    assert rows(said)["0.75"] == ["exact", "2, doing", "graph"] and warned == ""


def test_a_query_takes_evidence_from_the_file_and_from_options(joe: Path) -> None:
    said, _ = causalppl("query", joe, "E[y[h=2]]", "--over", "sample", "--json")
    assert json.loads(said)["value"] == pytest.approx(1.9, abs=1e-6)
    said, _ = causalppl("query", joe, "E[y[h=2]]", "--over", "sample", "--given", "y=0.5", "--json")
    assert json.loads(said)["value"] == pytest.approx(0.9, abs=1e-6)


def test_a_query_is_saved_as_json(coin: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    said, warned = causalppl(
        "query", coin, "P(y=1 | do(x=1))", "--observed", "x", "--json", "--save", file
    )
    found = json.loads(said)
    assert found == json.loads(file.read_text()) and str(file) in warned
    assert found["value"] == 0.75 and found["interval"] == [0.75, 0.75] and found["exact"]
    # y is not measured here, so that its law is the program's word
    assert found["identification"] == "graph and parametric form"


def test_a_caret_points_at_what_a_query_says_wrong(coin: Path) -> None:
    said, sentence = causalppl("query", coin, "P(y[x=1] = 1 | x==0)", code=2)
    lines = sentence.splitlines()
    assert said == "" and lines[0].startswith("causalppl: error: query: cannot read character 18")
    assert lines[2].index("^") == lines[1].index("==") + 1 and len(lines) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["P(yy=1)"], "did you mean 'y'"),
        (["P(y=1)", "--over", "units"], "over='units'; give 'sample', 'population' or None"),
        (["P(y=1)", "--given", "y"], "--given: 'y' is not SITE=VALUE"),
        (["P(y=1)", "--save", "/nowhere/at/all.json"], "--save: there is no folder"),
        (["P(y=1)", "--units", "people"], "no plate of the program"),
        (["P(y=1 | x=7)"], "probability zero"),
    ],
)
def test_mistakes_in_queries_are_one_sentence(coin: Path, words: list[str], expected: str) -> None:
    said, sentence = causalppl("query", coin, *words, code=2)
    assert said == "" and sentence.count("\n") == 1
    assert sentence.startswith("causalppl: error: ") and expected in sentence


def test_a_graph_is_shown_and_asked(coin: Path, tmp_path: Path) -> None:
    file = tmp_path / "coin.dot"
    measured = ("--observed", "x", "--observed", "y")
    questions = ("--identify", "P(y | do(x))", "--identify", "P(y[x=0]=0 | x=1, y=1)")
    said, _ = causalppl("graph", coin, *measured, *questions, "--out", file)
    assert rows(said)["u"] == ["latent"] and rows(said)["y"] == ["observed", "x"]
    assert "\n  P(y | x)\n" in said and "\n  conflict: y[x=0] and y share noise" in said
    assert file.read_text().startswith("digraph")


def test_what_data_gives_is_observed_in_the_graph(joe: Path) -> None:
    said, _ = causalppl("graph", joe)
    assert {rows(said)[n][0] for n in ("x", "h", "y")} == {"observed"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "coin.gif"], "ends in none of .dot, .svg and .png"),
        (["--observed", "z"], "observed names 'z', which is no site"),
        (["--observed", "y", "--identify", "P(y | do(x))"], "'x' is latent"),
    ],
)
def test_mistakes_in_graphs_are_one_sentence(coin: Path, words: list[str], expected: str) -> None:
    _, sentence = causalppl("graph", coin, *words, code=2)
    assert sentence.count("\n") == 1 and expected in sentence


@pytest.mark.skipif(shutil.which("dot") is not None, reason="dot is installed")
def test_a_picture_without_dot_says_what_to_install(coin: Path, tmp_path: Path) -> None:
    _, sentence = causalppl("graph", coin, "--out", tmp_path / "coin.svg", code=2)
    assert "apt-get install graphviz" in sentence and "coin.dot" in sentence
