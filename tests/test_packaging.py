"""The project's own promises: layers, licence, metadata, and what the wheel holds."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_lower_layers_never_import_higher_ones() -> None:
    check = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    found = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stdout
    assert "1 kept, 0 broken" in found.stdout


def test_every_module_of_the_package_is_in_a_layer() -> None:
    layers = " ".join(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"])
    named = set(layers.replace("(", " ").replace(")", " ").replace(":", " ").split())
    modules = {
        p.stem
        for p in (ROOT / "causalppl").iterdir()
        if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert modules - {"__init__"} <= named


def test_models_import_nothing_of_causalppl_but_networks() -> None:
    for path in (ROOT / "models").glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("from causalppl.networks import", "")
        assert "import causalppl" not in text, path
        assert "from causalppl" not in text, path


def test_licence_is_the_whole_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert (
        "9. Accepting Warranty or Additional Liability" in text
        and "END OF TERMS AND CONDITIONS" in text
    )


def test_version_is_said_once() -> None:
    import causalppl

    assert metadata.version("causalppl") == PROJECT["project"]["version"] == causalppl.__version__


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(n): v for n, v in (line.split("==") for line in lines if "==" in line)
    }
    assert all(line.startswith("#") or "==" in line for line in lines if line)
    assert not any("+" in version for version in pins.values())  # builds of one machine
    project = PROJECT["project"]
    for text in [
        *project["dependencies"],
        *(t for group in project["optional-dependencies"].values() for t in group),
    ]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name])


@pytest.mark.slow
def test_wheel_holds_the_typed_package_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        (metadata_file,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(wheel.read(metadata_file).decode())
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "causalppl = causalppl.cli:main" in wheel.read(entry_points).decode()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"causalppl"}
    assert "causalppl/py.typed" in names
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    assert any(n.endswith("licenses/LICENSE") for n in names)
