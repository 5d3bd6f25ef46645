"""Posteriors in files: the same answers afterwards, and nothing read that was not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import causalppl as cp
from causalppl import errors

N = dist.Normal


def people(doses: torch.Tensor, *, slope: float = 2.0) -> None:
    base = pyro.param("base", torch.tensor(0.5))
    theta = pyro.sample("theta", N(0.0, 1.0))
    with pyro.plate("people", len(doses)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        m = pyro.sample("m", dist.Poisson(torch.exp(0.3 * z)))
        pyro.sample("y", N(base + slope * z + theta * doses + m, 1.0))


DOSES = torch.tensor([0.0, 1.0, 2.0])
EVIDENCE: dict[str, Any] = {
    "y": torch.tensor([1.0, float("nan"), 4.0]),
    "m": cp.Interval(0, 3),
}
QUESTIONS: dict[str, Any] = {
    "treated": {"z": 1.0},
    "some": {"z": cp.where(DOSES > 0.5, 0.0)},
    "drawn": {"z": dist.Bernoulli(0.5)},
    "nested": {"z": 0.0, "m": cp.from_world("treated")},
}


def same(first: Any, second: Any) -> None:
    a, b = (p.predict(worlds=QUESTIONS) for p in (first, second))
    assert a.worlds == b.worlds and a.sites == b.sites
    for world in a.worlds:
        for site in a.sites:
            assert torch.equal(a.tensor(site, world), b.tensor(site, world)), (world, site)
    assert str(a.diagnostics) == str(b.diagnostics)


@pytest.mark.filterwarnings("ignore::causalppl.errors.InferenceWarning")
def test_the_same_questions_get_the_same_answers(tmp_path: Path) -> None:
    posterior = cp.abduct(people, EVIDENCE, num_samples=50, seed=3)(DOSES, slope=1.5)
    posterior.save(tmp_path / "posterior.pt")
    same(posterior, cp.Posterior.load(tmp_path / "posterior.pt", people))
    same(posterior, cp.Posterior.load(tmp_path / "posterior.pt", people, DOSES, slope=1.5))
    # what has happened to the parameters since does not matter
    pyro.get_param_store()["base"] = torch.tensor(9.0)
    same(posterior, cp.Posterior.load(str(tmp_path / "posterior.pt"), people))
    again = cp.Posterior.load(tmp_path / "posterior.pt", people)
    again.save(tmp_path / "again.pt")
    same(posterior, cp.Posterior.load(tmp_path / "again.pt", people))


def test_evidence_of_other_worlds_is_kept(tmp_path: Path) -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", dist.Bernoulli(torch.sigmoid(x)))
        pyro.sample("w", N(x, 1.0))

    worlds = {"none": {"x": 0.0}}
    for evidence in ({"none/y": 1.0}, {"none/w": 1.0, "y": 0.0}):
        posterior = cp.abduct(model, evidence, worlds=worlds, num_samples=100, seed=0)()
        posterior.save(tmp_path / "p.pt")
        read = cp.Posterior.load(tmp_path / "p.pt", model)
        a, b = (p.predict(worlds={**worlds, "k": {"x": 2.0}}) for p in (posterior, read))
        for world in a.worlds:
            for site in a.sites:
                assert torch.equal(a.tensor(site, world), b.tensor(site, world))


def test_networks_are_as_they_were(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)

    def model() -> None:
        x = pyro.sample("x", N(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("y", N(net(x), 1.0).to_event(1))

    evidence = {"x": torch.ones(1), "y": torch.ones(1)}
    posterior = cp.abduct(model, evidence)()
    before = posterior.predict({"x": 2.0}).tensor("y", "counterfactual")
    posterior.save(tmp_path / "p.pt")
    with torch.no_grad():
        net.weight.add_(1.0)
    read = cp.Posterior.load(tmp_path / "p.pt", model)
    assert torch.equal(read.predict({"x": 2.0}).tensor("y", "counterfactual"), before)


def test_new_units_after_loading(tmp_path: Path) -> None:
    posterior = cp.abduct(people, {"y": torch.tensor([1.0, 2.0, 4.0])}, num_samples=20, seed=0)(
        DOSES
    )
    posterior.save(tmp_path / "p.pt")
    read = cp.Posterior.load(tmp_path / "p.pt", people)
    a, b = (p.for_units(torch.ones(2), evidence={"y": torch.zeros(2)}) for p in (posterior, read))
    for name, draws in a.latents.items():
        assert torch.equal(draws, b.latents[name])


# --- What is refused ----------------------------------------------------------------------------


def changed(kind: str) -> Callable[..., None]:
    def other(doses: torch.Tensor, slope: float = 2.0) -> None:
        base = pyro.param("base", torch.tensor(0.5))
        theta = pyro.sample("theta", N(0.0, 2.0 if kind == "prior" else 1.0))
        with pyro.plate("people", len(doses)):
            z = pyro.sample("zz" if kind == "name" else "z", dist.Bernoulli(0.4))
            m = pyro.sample("m", dist.Poisson(torch.exp(0.3 * z)))
            loc = base + slope * z + theta * doses + m
            loc = loc + z * m if kind == "equation" else loc
            law = dist.Laplace if kind == "family" else N
            pyro.sample("y", law(loc, 1.0))
        if kind == "site":
            pyro.sample("extra", N(0.0, 1.0))

    if kind == "mechanism":
        return cp.set_mechanism(people, {"y": "antitone"})
    return other


@pytest.mark.parametrize(
    "kind", ["prior", "name", "equation", "family", "site", "mechanism", "arguments", "order"]
)
def test_another_program_is_refused(kind: str, tmp_path: Path) -> None:
    posterior = cp.abduct(people, {"y": torch.ones(3)}, num_samples=20, seed=0)(DOSES)
    posterior.save(tmp_path / "p.pt")
    model: Any = people if kind == "arguments" else changed(kind)
    args = (DOSES + 1,) if kind == "arguments" else ()
    if kind == "order":

        def model(doses: torch.Tensor) -> None:
            pyro.sample("other", N(0.0, 1.0))
            people(doses)

    with pytest.raises(errors.ProgramError, match="is of another program or other arguments"):
        cp.Posterior.load(tmp_path / "p.pt", model, *args)
    cp.Posterior.load(tmp_path / "p.pt", people)


def test_arguments_that_are_no_data_have_to_be_given_again(tmp_path: Path) -> None:
    def model(law: Any) -> None:
        x = pyro.sample("x", law)
        pyro.sample("y", N(x, 1.0))

    posterior = cp.abduct(model, {"x": 0.0, "y": 1.0})(N(0.0, 1.0))
    posterior.save(tmp_path / "p.pt")
    with pytest.raises(errors.ProgramError, match=r"give them again"):
        cp.Posterior.load(tmp_path / "p.pt", model)
    read = cp.Posterior.load(tmp_path / "p.pt", model, N(0.0, 1.0))
    assert float(read.predict({"x": 1.0}).tensor("y", "counterfactual")) == 2.0


def saved(path: Path) -> bytes:
    def model() -> None:
        pyro.sample("x", N(0.0, 1.0))

    cp.abduct(model, num_samples=500, seed=0)().save(path)
    return path.read_bytes()


FOREIGN = {
    "empty": b"",
    "text": b"hello world\n",
    "json": b'{"a": 1}',
    "zeros": bytes(100),
    "noise": np.random.default_rng(0).bytes(3000),
    "pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_somebody_else(kind: str, tmp_path: Path) -> None:
    (tmp_path / "p.pt").write_bytes(FOREIGN[kind])
    with pytest.raises(errors.ProgramError, match="holds no posterior"):
        cp.Posterior.load(tmp_path / "p.pt", people)


def test_a_file_of_torch_and_of_another_layout(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(3)}, tmp_path / "p.pt")
    with pytest.raises(errors.ProgramError, match="holds no posterior"):
        cp.Posterior.load(tmp_path / "p.pt", people)
    content = {"layout": "causalppl posterior 0", "content": torch.zeros(3, dtype=torch.uint8)}
    torch.save(content, tmp_path / "p.pt")
    with pytest.raises(errors.ProgramError, match="abduct again"):
        cp.Posterior.load(tmp_path / "p.pt", people)
    with pytest.raises(FileNotFoundError):
        cp.Posterior.load(tmp_path / "absent.pt", people)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_is_never_read_as_something_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One byte changed, or the end cut off: refused, or the very draws that were written."""
    path = tmp_path_factory.mktemp("damaged") / "p.pt"
    content = saved(path)

    def model() -> None:
        pyro.sample("x", N(0.0, 1.0))

    whole = cp.Posterior.load(path, model).latents["x"]
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = content[:place]
    else:
        byte = content[place] ^ data.draw(st.integers(1, 255))
        damaged = content[:place] + bytes([byte]) + content[place + 1 :]
    path.write_bytes(damaged)
    try:
        read = cp.Posterior.load(path, model)
    except errors.ProgramError:
        return
    assert torch.equal(read.latents["x"], whole)
