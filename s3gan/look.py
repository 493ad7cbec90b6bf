"""Pictures of what a generator has learned: ``accelerate launch -m s3gan.look run=RUN [data=DIR] [out=DIR]``.

Running the command again writes the same files, whatever the number of processes. Training and the choice of a
checkpoint or a pool must not use these pictures.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Section, left_out
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.inference.sampling import Balance, class_weights, plan_labels
from s3gan.metrics.labelled import choose
from s3gan.pictures import diversity, interpolation, neighbours, spectrum
from s3gan.pictures.class_choice import choose_classes
from s3gan.pictures.class_grid import class_grid
from s3gan.pictures.film import film
from s3gan.pictures.real import RealImages, open_real
from s3gan.pictures.sampler import SampledSection, Sampler
from s3gan.pictures.truncation import parse_thresholds, truncation_sweep

Keep = Callable[[Callable[[], Section]], None]  # every rank calls it; the main rank makes the section and writes it


@dataclass
class LookConfig(CommandKeys):
    """Draws pictures of what a generator has learned into report/, each with a text that says what to look for."""

    run: str = option(MISSING, "run directory of s3gan.train", path=True)
    data: str = option(
        "", "directory with the real images, as evaluate takes it; empty leaves out what needs them", path=True
    )
    out: str = option("", "where report/*.png and report/*.json go; RUN/look by default", path=True)
    checkpoint: str = option("last", "last, best, or the path of a checkpoint", path=True)
    classes: str = option(
        "20", "how many classes are shown (a keyed choice), or their names, comma-separated", path=True
    )
    samples: int = option(10, "images of a class in the class grid and the truncation sweep")
    thresholds: str = option("0.25,0.5,1,2", "of the truncation sweep, comma-separated", path=True)
    count: int = option(
        1_000, "generated images behind spectrum and nearest real images, classes as in the label table"
    )
    real: int = option(50_000, "real images among which the nearest are searched (a keyed choice); 0 takes all")

    def check(self) -> None:
        super().check()
        for name in ("samples", "count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number of images")
        if self.real < 0 or self.real == 1:
            raise UserError(f"real={self.real}: expected 0 (all) or at least 2 images")
        parse_thresholds(self.thresholds)


@command(LookConfig)
def main(config: LookConfig) -> None:
    if config.validate:
        return
    job, run = Job.open(config), Path(config.run)
    out = Path(config.out or run / "look")
    classes = choose_classes(config.classes, read_network(run)["class_names"], config.seed)
    generator, info = load_generator(run, config.checkpoint, job.device)
    network = read_network(run, info["path"])
    real = open_real(config.data, run, Path(info["path"]), config.seed) if config.data else None
    sampler = Sampler(generator, network, config.seed, job)
    drawn_by = f"By {info['file']}, the averaged generator after {info['nimg']:,} images seen; seed {config.seed}."

    def keep(make: Callable[[], Section], origin: str = drawn_by) -> None:
        job.on_main(lambda: write_section(make(), origin, out))

    with OutputDirectory(out).locked(job.on_main):
        look_alone(config, sampler, classes, keep)
        keep(lambda: film(run, job.device), "")
        if real is None:
            for section in (neighbours.SECTION, spectrum.SECTION, diversity.SECTION):
                keep(partial(left_out, *section, "it needs real images (data=DIR)"))
        else:
            look_beside(config, sampler, classes, real, keep)


def write_section(section: Section, origin: str, out: Path) -> None:
    """Writes a section and prints its files; `origin`, where it is not empty, says in the section what drew it."""
    files = replace(section, text="\n\n".join(filter(None, (section.text, origin)))).write(out)
    print(f"{section.title}: {', '.join(map(str, files)) or section.text}", flush=True)


def look_alone(config: LookConfig, sampler: Sampler, classes: list[int], keep: Keep) -> None:
    """The pictures that need nothing but the generator."""
    names = sampler.network["class_names"]
    draw(class_grid(sampler.noise, classes, names, config.samples), sampler, keep)
    draw(interpolation.between_noise(sampler.noise, classes, names), sampler, keep)
    if len(classes) > 1:
        draw(interpolation.between_classes(sampler.noise, classes, names), sampler, keep)
    else:
        keep(lambda: left_out(*interpolation.CLASSES, "only one class is shown"))
    thresholds = parse_thresholds(config.thresholds)
    draw(truncation_sweep(sampler.noise, classes, names, config.samples, thresholds), sampler, keep)


def look_beside(config: LookConfig, sampler: Sampler, classes: list[int], real: RealImages, keep: Keep) -> None:
    """The pictures of samples next to real images."""
    names = sampler.network["class_names"]
    labels = plan_labels(config.count, class_weights(sampler.network, Balance.table), config.seed)
    z = sampler.noise(range(config.count))
    samples = sampler.draw(z, torch.from_numpy(labels).long(), "samples")
    candidates = real.some(config.real)
    indices = candidates[choose(len(candidates), config.count, config.seed)]
    reals = real.read(indices)
    nearest, baseline = neighbours.compare(samples, reals, real, candidates, indices, sampler.job)
    keep(lambda: neighbours.section(samples, labels, nearest, baseline, real, len(candidates), classes, names))
    keep(lambda: spectrum.section(samples, reals, real.described))
    if real.labels is not None:
        draw(diversity.diversity(sampler.noise, classes, names, real), sampler, keep)
    else:
        keep(lambda: left_out(*diversity.SECTION, real.unknown))


def draw(section: SampledSection, sampler: Sampler, keep: Keep) -> None:
    images = sampler.draw(section.z, section.conditions, section.what)
    keep(lambda: section.make(images))


if __name__ == "__main__":
    sys.exit(main())
