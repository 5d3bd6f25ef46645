"""``make demo``: how much would each of those who kept smoking have gained, had they quit?"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import causalppl as cp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models import smoking_cessation


def interval(draws: object) -> str:
    """Mean and central 95% interval of an array of draws."""
    low, high = (float(draws.quantile(q)) for q in (0.025, 0.975))  # type: ignore[attr-defined]
    return f"{float(draws.mean()):5.2f} kg   [{low:.2f}, {high:.2f}]"  # type: ignore[attr-defined]


def main() -> None:
    """Fit, ask, print, draw."""
    warnings.simplefilter("ignore", FutureWarning)
    args, evidence = smoking_cessation.data()
    quit, gain = evidence["quit"], evidence["weight_gain"]
    print(f"NHEFS: {len(quit)} smokers of 1971; {int(quit.sum())} had quit by 1982.")
    posterior = cp.abduct(smoking_cessation.model, evidence, seed=0, progress=True)(*args)
    worlds = posterior.predict(worlds={"quit": {"quit": 1.0}, "smoke": {"quit": 0.0}})
    print(worlds.diagnostics, "\n")
    effect = worlds.contrast("weight_gain", "quit", "smoke")
    kept = (quit == 0).numpy()
    published = smoking_cessation.PUBLISHED
    naive = float(gain[quit == 1].mean() - gain[quit == 0].mean())
    print("What quitting does to the weight gained from 1971 to 1982:")
    print(
        f"  quitters against the others, unadjusted   {naive:5.2f} kg   (published {published['unadjusted']})"
    )
    print(f"  average effect on all                     {interval(effect.mean('people'))}")
    for name in ("ip_weighting", "standardisation"):
        print(f"    published, {name.replace('_', ' '):<28} {published[name]}")
    print(
        f"  average effect on those who kept smoking  {interval(effect[:, kept].mean('people'))}\n"
    )
    print("Some who kept smoking, had they quit (same person, same noise):")
    for person in [int(i) for i in kept.nonzero()[0][:: max(1, kept.sum() // 5)][:5]]:
        gained = float(gain[person])
        print(
            f"  person {person:4d} gained {gained:6.2f} kg; quitting would have added {interval(effect[:, person])}"
        )
    figure, axes = plt.subplots(figsize=(7, 4.5))
    cp.plots.worlds(worlds, "weight_gain", ax=axes)
    picture = Path("demo.png").resolve()
    figure.savefig(picture, dpi=150, bbox_inches="tight")
    print(f"\nPicture: {picture}")


if __name__ == "__main__":
    main()
