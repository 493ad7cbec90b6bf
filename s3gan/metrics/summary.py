"""What a person sees of an evaluation: lines on the terminal, and sections of the report with tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.sections import write_section
from s3gan.metrics.labelled import Labelled
from s3gan.metrics.pictures import bars, class_grid, neighbour_grid
from selfsup.classifier import Pictures

TRAINING_SETS = {
    "pool": "pool alone",
    "budget": "label budget alone",
    "budget_and_pool": "budget + pool",
    "all": "all real labels",
}
DISTANCES = "distances", "prdc", "intra", "memorisation"  # the parts that are measured on features
ABOUT_SCORES = (
    "Frechet (fd) and kernel (kd) distances, precision, recall, density and coverage on the features of one detector; "
    "floor: the same for real images of the other split. Scores of one name and detector compare; only fid, kid and is "
    "are FID, KID and the Inception Score."
)
ABOUT_INTRA = (
    "The Frechet distance between generated and real images of a class. Few images make it too large, the floor (real "
    "images of the other split, as many) alike."
)
ABOUT_NEIGHBOURS = (
    "nn_ratio is the median distance from a sample to its nearest training image, divided by that of the real test "
    "images: about 1 is as it should be; well below 1 the samples repeat training images or show only the commonest."
)


@dataclass(frozen=True)
class Shown:
    """What was evaluated, for its pictures and tables."""

    what: str  # the run or the pool
    images: Labelled  # the first draw, of classes called `image_classes`
    image_classes: Sequence[str]
    data_classes: Sequence[str]
    train: Pictures


def result_lines(results: dict[str, Any], draws: Sequence[dict[str, Any]] = ()) -> list[str]:
    """One line a score, from the results of the parts, then one line a draw, where there are several."""
    lines = []
    for part in DISTANCES:
        for name, score in _scores(part, results):
            lines.append(f"{name}: {_cell(score)}  ({_protocol(score)})")
    for row in draw_rows(draws):
        lines.append(", ".join(f"{name}: {value}" for name, value in row.items()))
    for name, found in _scores("cas", results):
        lines.append(f"accuracy, trained on {TRAINING_SETS.get(name, name)}: {_cell(found)}")
    return lines


def draw_rows(draws: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Column to cell for each of several draws (`images`: their identity, `scores`: by name), floors left out."""
    if len(draws) < 2:
        return []
    return [
        {"images seen": f"{draw['images']['nimg']:,}", "sample seed": str(draw["images"]["seed"])}
        | {name: f"{score['value']:.4f}" for name, score in draw["scores"].items() if not name.startswith("floor_")}
        for draw in draws
    ]


def write_summary(
    out: Path, results: dict[str, Any], shown: Shown, draws: Sequence[dict[str, Any]] = (), suffix: str = ""
) -> None:
    """Writes the report's sections `scores`, `draws`, `intra`, `memorisation` and `accuracy`, where they have content.

    Args:
        results: of the parts, as many as were asked for.
        draws: the single draws behind the means, as `draw_rows` takes them.
        suffix: of the sections on features, to tell detectors apart.
    """
    _write_scores(out, results, shown, suffix)
    if rows := draw_rows(draws):
        cells = [list(row.values()) for row in rows]
        title = f"The draws behind the means of {shown.what}"
        write_section(out, f"draws{suffix}", title=title, columns=list(rows[0]), rows=cells)
    if "intra" in results:
        _write_intra(out, results["intra"], shown, suffix)
    if "memorisation" in results:
        _write_neighbours(out, results["memorisation"], shown, suffix)
    if "cas" in results:
        _write_accuracy(out, results["cas"], shown)


def _write_scores(out: Path, results: dict[str, Any], shown: Shown, suffix: str) -> None:
    classes = class_grid(out / "report" / "classes.png", shown.images)
    names = ", ".join(shown.image_classes[number] for number in classes)
    rows = [
        [name, _cell(score), score.get("samples", ""), score.get("reference", ""), _protocol(score)]
        for part in DISTANCES
        for name, score in _scores(part, results)
    ]
    write_section(
        out,
        f"scores{suffix}",
        title=f"Distances of {shown.what} to real images",
        text=ABOUT_SCORES,
        columns=["score", "value", "images", "real images", "protocol"],
        rows=rows,
        pictures=[("classes.png", f"one class a row: {names}")],
    )


def _write_intra(out: Path, intra: dict[str, Any], shown: Shown, suffix: str) -> None:
    found = {name: score for name, score in intra.items() if "per_class" in score}
    if not found:
        return
    first = next(iter(found.values()))
    picture = f"intra{suffix}.png"
    heights = {name: score["per_class"] for name, score in found.items()}
    bars(out / "report" / picture, heights, shown.data_classes, "Frechet distance", None)
    rows = [
        [label, *("n/a" if value is None else f"{value:.3f}" for value in values), first["left_out"].get(label, "")]
        for label, *values in zip(shown.data_classes, *heights.values(), strict=True)
    ]
    write_section(
        out,
        f"intra{suffix}",
        title=f"Distances of {shown.what} to real images by class",
        text=ABOUT_INTRA,
        columns=["class", *heights, "left out, too few images"],
        rows=rows,
        pictures=[(picture, "Frechet distance by class")],
    )


def _write_neighbours(out: Path, memorisation: dict[str, Any], shown: Shown, suffix: str) -> None:
    found = [(name, score) for name, score in memorisation.items() if "shown" in score]
    if not found:
        return
    [(name, score)] = found
    picture = f"neighbours{suffix}.png"
    neighbour_grid(out / "report" / picture, score["shown"], shown.images.images, shown.train)
    half = len(score["shown"]) // 2
    write_section(
        out,
        f"memorisation{suffix}",
        title=f"The training images nearest to {shown.what}",
        text=f"{name}: {_cell(score)}, among {score['reference']:,} training images. {ABOUT_NEIGHBOURS}",
        columns=["sample", "its distance, of the median of test images"],
        rows=[[row["sample"], f"{row['ratio']:.2f}"] for row in score["shown"]],
        pictures=[
            (picture, f"sample | its nearest training images; first the {half} closest samples, then typical ones")
        ],
    )


def _write_accuracy(out: Path, cas: dict[str, Any], shown: Shown) -> None:
    found, classes = dict(_scores("cas", {"cas": cas})), shown.data_classes
    scored = {TRAINING_SETS[name]: result["per_class"] for name, result in found.items() if "n/a" not in result}
    rows = [
        [TRAINING_SETS.get(name, name), result.get("train_count", ""), _cell(result), *_per_class(result, len(classes))]
        for name, result in found.items()
    ]
    pictures = []
    if scored:
        bars(out / "report" / "accuracy.png", scored, classes, "accuracy", 1)
        pictures.append(("accuracy.png", "accuracy on real test images by class"))
    dropped = found.get("pool", {}).get("dropped_images", 0)
    write_section(
        out,
        "accuracy",
        title=f"Accuracy on real test images of classifiers trained on {shown.what}",
        text="Each classifier has the same recipe and number of steps."
        + (f" {dropped:,} images of the pool stand for no class and are left out." if dropped else ""),
        columns=["trained on", "images", "accuracy", *classes],
        rows=rows,
        pictures=pictures,
    )


def _scores(part: str, results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = results.get(part, {})
    return [("all sets" if part == "cas" else part, found)] if "n/a" in found else list(found.items())


def _cell(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return f"n/a ({score['n/a']})"
    if "accuracy" in score:
        return f"{score['accuracy']:.1%}"
    spread = score.get("sample_sd", score.get("sd"))
    return f"{score['value']:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def _protocol(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return "-"
    against = f" against {score['reference']:,} of {score['split']}" if score["reference"] else ""
    mean = f"mean of {score['draws']} draws, " if "draws" in score else ""
    return f"{mean}{score['samples']:,} images{against}, detector {score['detector']}, seed {score['seed']}"


def _per_class(result: dict[str, Any], classes: int) -> list[str]:
    shares = result.get("per_class", [None] * classes)
    return ["n/a" if share is None else f"{share:.1%}" for share in shares]
