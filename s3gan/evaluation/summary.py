"""The summary of an evaluation: lines on the terminal, and sections of the report with tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.reporting.section import Picture, Section
from s3gan.evaluation.summary_pictures import bars, class_rows, neighbour_rows
from s3gan.metrics.labelled import Labelled
from selfsup.labelling.classifier import Pictures

TRAINING_SETS = {
    "pool": "pool alone",
    "budget": "label budget alone",
    "budget_and_pool": "budget + pool",
    "all": "all real labels",
}
DISTANCES = "distances", "prdc", "intra", "memorisation"  # the tasks that are measured on features
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
class SummaryContext:
    """What was evaluated, for its pictures and tables."""

    what: str  # the run or the pool
    images: Labelled  # the first draw, of classes called `image_classes`
    image_classes: Sequence[str]
    data_classes: Sequence[str]
    train: Pictures


def result_lines(results: dict[str, Any], draws: Sequence[dict[str, Any]] = ()) -> list[str]:
    """One line per score, from the results of the tasks, then one line per draw, where there are several."""
    lines = []
    for task in DISTANCES:
        for name, score in _scores(task, results):
            lines.append(f"{name}: {_cell(score)}  ({_protocol(score)})")
    for row in draw_rows(draws):
        lines.append(", ".join(f"{name}: {value}" for name, value in row.items()))
    for name, score in _scores("cas", results):
        lines.append(f"accuracy, trained on {TRAINING_SETS.get(name, name)}: {_cell(score)}")
    return lines


def draw_rows(draws: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Column to cell for each of several draws (`images`: their identity, `scores`: by name, `missing`: why, by task),
    floors left out."""
    if len(draws) < 2:
        return []
    return [
        {"images seen": f"{draw['images']['nimg']:,}", "sample seed": str(draw["images"]["seed"])}
        | {name: f"{score['value']:.4f}" for name, score in draw["scores"].items() if not name.startswith("floor_")}
        | {task: f"n/a ({reason})" for task, reason in draw["missing"].items()}
        for draw in draws
    ]


def write_summary(
    out: Path, results: dict[str, Any], context: SummaryContext, draws: Sequence[dict[str, Any]] = (), suffix: str = ""
) -> None:
    """Writes the report's sections `scores`, `draws`, `intra`, `memorisation` and `accuracy`, where they have content.

    Args:
        results: of the tasks, as many as were asked for.
        draws: the single draws behind the means, as `draw_rows` takes them.
        suffix: of the sections on features, which distinguishes detectors.
    """
    sections = [_scores_section(results, context, suffix)]
    if rows := draw_rows(draws):
        title = f"The draws behind the means of {context.what}"
        columns = list({name: None for row in rows for name in row})  # the draws may differ in what they lack
        cells = [[row.get(name, "") for name in columns] for row in rows]
        sections.append(Section(f"draws{suffix}", title, "", (), columns, cells))
    if by_class := {name: score for name, score in results.get("intra", {}).items() if "per_class" in score}:
        sections.append(_intra_section(by_class, context, suffix))
    sections += [
        _neighbours_section(name, score, context, suffix)
        for name, score in results.get("memorisation", {}).items()
        if "shown" in score
    ]
    if "cas" in results:
        sections.append(_accuracy_section(dict(_scores("cas", results)), context))
    for section in sections:
        section.write(out)


def _scores_section(results: dict[str, Any], context: SummaryContext, suffix: str) -> Section:
    rows = [
        [name, _cell(score), score.get("samples", ""), score.get("reference", ""), _protocol(score)]
        for task in DISTANCES
        for name, score in _scores(task, results)
    ]
    picture = Picture("classes.png", "one class a row", class_rows(context.images, context.image_classes))
    columns = ["score", "value", "images", "real images", "protocol"]
    title = f"Distances of {context.what} to real images"
    return Section(f"scores{suffix}", title, ABOUT_SCORES, [picture], columns, rows)


def _intra_section(scores: dict[str, dict[str, Any]], context: SummaryContext, suffix: str) -> Section:
    heights = {name: score["per_class"] for name, score in scores.items()}
    left_out = next(iter(scores.values()))["left_out"]
    png = bars(heights, context.data_classes, "Frechet distance", None)
    rows = [
        [label, *("n/a" if value is None else f"{value:.3f}" for value in values), left_out.get(label, "")]
        for label, *values in zip(context.data_classes, *heights.values(), strict=True)
    ]
    return Section(
        f"intra{suffix}",
        f"Distances of {context.what} to real images by class",
        ABOUT_INTRA,
        [Picture(f"intra{suffix}.png", "Frechet distance by class", png)],
        ["class", *heights, "left out, too few images"],
        rows,
    )


def _neighbours_section(name: str, score: dict[str, Any], context: SummaryContext, suffix: str) -> Section:
    png = neighbour_rows(score["shown"], context.images.images, context.train)
    caption = (
        f"samples beside their nearest training images: the {len(score['shown']) // 2} closest, then typical ones; "
        "before each row its distance to the nearest, divided by the median of the test images"
    )
    return Section(
        f"memorisation{suffix}",
        f"The training images nearest to {context.what}",
        f"{name}: {_cell(score)}, among {score['reference']:,} training images. {ABOUT_NEIGHBOURS}",
        [Picture(f"memorisation{suffix}.png", caption, png)],
    )


def _accuracy_section(results: dict[str, dict[str, Any]], context: SummaryContext) -> Section:
    classes = context.data_classes
    scored = {TRAINING_SETS[name]: result["per_class"] for name, result in results.items() if "n/a" not in result}
    rows = [
        [TRAINING_SETS.get(name, name), result.get("train_count", ""), _cell(result), *_per_class(result, len(classes))]
        for name, result in results.items()
    ]
    pictures = []
    if scored:
        png = bars(scored, classes, "accuracy", 1)
        pictures.append(Picture("accuracy.png", "accuracy on real test images by class", png))
    dropped = results.get("pool", {}).get("dropped_images", 0)
    return Section(
        "accuracy",
        f"Accuracy on real test images of classifiers trained on {context.what}",
        "Each classifier has the same recipe and number of steps."
        + (f" {dropped:,} images of the pool stand for no class and are left out." if dropped else ""),
        pictures,
        ["trained on", "images", "accuracy", *classes],
        rows,
    )


def _scores(task: str, results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    scores = results.get(task, {})
    return [("all sets" if task == "cas" else task, scores)] if "n/a" in scores else list(scores.items())


def _cell(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return f"n/a ({score['n/a']})"
    if "accuracy" in score:
        return f"{score['accuracy']:.1%}"
    spreads = (
        {"": "sd"} if "draws" not in score else {" (sample seeds)": "sample_sd", " (checkpoints)": "checkpoint_sd"}
    )
    tasks = [f" ± {score[name]:.4f}{of}" for of, name in spreads.items() if name in score]
    return f"{score['value']:.4f}" + "".join(tasks)


def _protocol(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return "-"
    against = f" against {score['reference']:,} of {score['split']}" if score["reference"] else ""
    mean = f"mean of {score['draws']} draws, " if "draws" in score else ""
    return f"{mean}{score['samples']:,} images{against}, detector {score['detector']}, seed {score['seed']}"


def _per_class(result: dict[str, Any], classes: int) -> list[str]:
    shares = result.get("per_class", [None] * classes)
    return ["n/a" if share is None else f"{share:.1%}" for share in shares]
