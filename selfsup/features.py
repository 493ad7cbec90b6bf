"""Features of every sample: ``accelerate launch -m selfsup.features data=DIR/train encoder=RUN out=FILE.npy``.

Every key ``encoder=`` takes the table in place of an encoder; `selfsup.encoders.feature_table` describes the format.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputFile
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from selfsup.encoders.feature_table import TABLE, write_features
from selfsup.encoders.loading import load_encoder
from selfsup.labelling.provenance import labels_seen_by


@dataclass
class FeaturesConfig(CommandKeys):
    """Writes the features of every sample as a table."""

    data: str = option(MISSING, "shard directory", path=True)
    encoder: str = option(MISSING, "run directory, safetensors or TorchScript file", path=True)
    out: str = option(MISSING, "feature table to write (.npy)", path=True)


@command(FeaturesConfig)
def main(config: FeaturesConfig) -> None:
    out = Path(config.out)
    if out.suffix != TABLE:
        raise UserError(f"out={config.out!r}: expected a file name that ends in {TABLE}")
    if config.validate:
        return
    job, shards = Job.open(config), Shards(config.data)
    encoder, description = load_encoder(config.encoder, shards.channels, job.device, size=shards.size)
    facts = {
        "fingerprint": shards.fingerprint,
        "count": len(shards),
        "encoder": description,
        "encoder_table": labels_seen_by(config.encoder),
    }
    job.barrier()  # every rank has looked at its inputs before one writes
    output = OutputFile(out)
    with output.locked(job.on_main):
        write_features(output, encoder, shards, facts, job)
    job.say(f"{out}: {len(shards)} samples, features of {description}")


if __name__ == "__main__":
    sys.exit(main())
