"""``make demo``: how much weight would each of those who kept smoking have gained, had they quit?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

import causalppl as cp
from models.smoking_cessation import PUBLISHED, data, model, people

if TYPE_CHECKING:
    from pandas import Series
    from xarray import DataArray

PICTURE = Path("build/quitting.png")


def interval(draws: DataArray) -> str:
    """The mean of draws and the interval that holds 95% of them."""
    low, high = draws.quantile([0.025, 0.975]).values
    return f"{float(draws.mean()):.2f} ({low:.2f} to {high:.2f})"


def describe(person: Series) -> str:
    """A person's record of 1971, in words."""
    who = "woman" if person.sex == 1 else "man"
    return f"{who} of {person.age:.0f}, {person.smokeintensity:.0f} cigarettes a day"


def main() -> None:
    """Abduct once, imagine two worlds, and report the population, individuals and a picture."""
    args, evidence = data()
    quit, gain = evidence["quit"].numpy(), evidence["weight_gain"].numpy()
    kept_smoking = np.flatnonzero(quit == 0)
    print(
        f"{len(quit):,} smokers of 1971; by 1982, {int(quit.sum())} of them had quit "
        f"and {len(kept_smoking):,} kept smoking.\n"
    )

    posterior = cp.abduct(model, evidence=evidence, num_samples=2000, seed=0, progress=True)(*args)
    worlds = posterior.predict(
        worlds={"all quit": {"quit": 1.0}, "none quit": {"quit": 0.0}},
        sites=["quit", "weight_gain"],
    )
    effect = worlds.contrast("weight_gain", "all quit", "none quit")  # draw, people

    unadjusted = gain[quit == 1].mean() - gain[quit == 0].mean()
    book = {
        k: f"{e.value} ({e.low} to {e.high})" for k, e in PUBLISHED.items() if k != "unadjusted"
    }
    kept = interval(effect.isel(people=kept_smoking).mean("people"))
    print(
        "\nWhat quitting does to the weight gained from 1971 to 1982, in kg, with 95% intervals:\n"
    )
    for quantity, here, published in (
        ("", "here", "published (Hernan and Robins)"),
        ("effect on those who kept smoking", kept, ""),
        (
            "effect on everybody",
            interval(effect.mean("people")),
            f"{book['standardisation']}, standardised",
        ),
        ("", "", f"{book['ip_weighting']}, weighted"),
        ("quitters minus others, unadjusted", f"{unadjusted:.2f}", f"{PUBLISHED['unadjusted']}"),
    ):
        print(f"  {quantity:35}{here:24}{published}".rstrip())

    # From the one with the smallest effect to the one with the largest, among those who kept smoking.
    by_effect = kept_smoking[np.argsort(effect.mean("draw").values[kept_smoking])]
    records = people()
    shown = {
        int(i): describe(records.iloc[i])
        for i in by_effect[np.linspace(0, len(by_effect) - 1, 5, dtype=int)]
    }
    print("\nFive of those who kept smoking; the same person, the same luck, but quitting:\n")
    print(f"  {'in 1971':33}{'gained':>8}   would have gained")
    for i, who in shown.items():
        what_if = worlds["weight_gain"].sel(world="all quit").isel(people=i)
        print(f"  {who:33}{gain[i]:8.2f}   {interval(what_if)}")

    print(f"\n{worlds.diagnostics}\n")
    print(f"picture: {draw(worlds, shown)}")


def draw(worlds: cp.Worlds, shown: dict[int, str]) -> Path:
    """The worlds with the people shown, beside the effect; the file it was saved in."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    cp.plots.worlds(
        worlds, "weight_gain", ax=left, units=shown, worlds=["factual", "all quit"],
        label="weight gained from 1971 to 1982, kg",
    )  # fmt: skip
    cp.plots.contrast(
        worlds,
        "weight_gain",
        "all quit",
        "none quit",
        ax=right,
        label="effect of quitting on weight gained, kg",
    )
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=150)
    return PICTURE.resolve()


if __name__ == "__main__":
    main()
