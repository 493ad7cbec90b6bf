"""The result of a comparison of mixtures: means, ratios and the choice, printed and as the report's section."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster_jobs.reporting.section import Section
from s3gan.metrics.paired import Better, mean_and_sd, paired_ratio


def summarise(
    scores: dict[str, dict[int, dict[str, float]]],
    shares: dict[str, dict[str, float]],
    leaks: dict[str, str],
    reference: str,
) -> dict[str, Any]:
    """Means, ratios to the reference on test images, and the row with the best held-out mean (ties: the first;
    None where no row is comparable).

    Args:
        scores: by row and seed `test` and, where the row is comparable, `held_out`: shares of images that are right.
        shares, leaks: by row; a leak is why the row is not comparable, "" where it is.
    """
    rows: dict[str, Any] = {}
    tests = {row: {seed: accuracies["test"] for seed, accuracies in by_seed.items()} for row, by_seed in scores.items()}
    for row, by_seed in scores.items():
        ratio = None if row == reference else paired_ratio(tests[row], tests[reference])
        rows[row] = {
            "shares": shares[row],
            "seeds": by_seed,
            "leak": leaks[row],
            "held_out_mean": None
            if leaks[row]
            else mean_and_sd([accuracies["held_out"] for accuracies in by_seed.values()])[0],
            "test": mean_and_sd(list(tests[row].values())),
            "ratio": None if ratio is None else [ratio.value, ratio.low, ratio.high],
            "verdict": "reference" if row == reference else ratio.verdict(Better.higher) if ratio else "no pair",
        }
    comparable = [row for row in rows if not leaks[row]]
    return {
        "reference": reference,
        "chosen": max(comparable, key=lambda row: rows[row]["held_out_mean"], default=None),
        "best_on_test": max(rows, key=lambda row: rows[row]["test"][0]),
        "rows": rows,
    }


def tell(out: Path, result: dict[str, Any]) -> None:
    """Prints the table and writes it as the report's section."""
    columns = ["mixture", "shares", "seeds", "held out", "chosen", "on test images", f"ratio to {result['reference']}"]
    columns.append("verdict")
    lines = [_line(row, entry, row == result["chosen"]) for row, entry in result["rows"].items()]
    title, text = f"Mixtures at {result['budget']:,} revealed labels", _text(result)
    Section("mixtures", title=title, text=text, columns=columns, rows=lines).write(out)
    table = Table(*columns, box=None)
    for line in lines:
        table.add_row(*line)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table, highlight=False)
    console.print(text, highlight=False, markup=False)


def _line(row: str, entry: dict[str, Any], chosen: bool) -> list[str]:
    (mean, sd), ratio, held_out = entry["test"], entry["ratio"], entry["held_out_mean"]
    return [
        row,
        " ".join(f"{name} {share:g}" for name, share in entry["shares"].items()),
        str(len(entry["seeds"])),
        "n/a" if held_out is None else f"{held_out:.1%}",
        "chosen" if chosen else "",
        f"{mean:.1%}" + ("" if sd is None else f" ± {sd:.1%}"),
        "" if ratio is None else f"{ratio[0]:.3f}" + ("" if ratio[1] is None else f" [{ratio[1]:.3f}, {ratio[2]:.3f}]"),
        entry["verdict"],
    ]


def _text(result: dict[str, Any]) -> str:
    held_out = f"{result['held_out']:,} labels"
    by = f"{held_out} of validation=" if result["validation"] else f"{result['folds']} held-out parts of the budget"
    text = (
        f"Accuracy of classifiers that each mixture trains. Chosen: the best mean over seeds on {by}; the "
        f"{result['tested']:,} test images have no part in it. Ratios are over seeds, with 95 % t intervals."
    )
    if result["validation"]:
        text += " Sources may have trained on these pictures without labels: small advantages may not last."
    leaks: dict[str, list[str]] = {}
    for row, entry in result["rows"].items():
        if entry["leak"]:
            leaks.setdefault(entry["leak"], []).append(row)
    for reason, rows in leaks.items():
        text += f" Not comparable on held-out labels, so not chosen: {', '.join(rows)} ({reason})."
    return text + (" Labels that no source saw, as validation=TABLE, make them comparable." if leaks else "")
