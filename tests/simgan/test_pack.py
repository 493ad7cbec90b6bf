from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from simgan.pack import SOURCES, SyntheticPackConfig, main
from simgan.simulators.printed_digits import draw


def config(out: Path, **keys: object) -> SyntheticPackConfig:
    return SyntheticPackConfig(out=str(out), **({"count": 25, "size": 16, "shard_samples": 10, "workers": 0} | keys))  # type: ignore[arg-type]


def test_shards_hold_what_the_simulator_draws(tmp_path: Path) -> None:
    main.body(config(tmp_path / "out", test=0.2, seed=3))
    for split, count in (("train", 25), ("test", 5)):
        shards = Shards(tmp_path / "out" / split)
        assert shards.count == count and shards.channels == 1 and shards.classes == [str(digit) for digit in range(10)]
        for index in (0, count - 1):
            image, label, factors = draw(16, 3, split, index)
            assert np.array_equal(shards.image(index), image) and shards.annotation(index) == factors
            assert shards.hidden_labels()[index] == label


def test_more_images_begin_with_the_same_ones(tmp_path: Path) -> None:
    main.body(config(tmp_path / "few", count=10))
    main.body(config(tmp_path / "more", count=25))
    assert (tmp_path / "few/train/000000.tar").read_bytes() == (tmp_path / "more/train/000000.tar").read_bytes()


def test_a_finished_directory_is_left_alone_and_another_configuration_refused(tmp_path: Path) -> None:
    main.body(config(tmp_path / "out"))
    index = tmp_path / "out" / "train" / "index.json"
    stamp = index.stat().st_mtime_ns
    main.body(config(tmp_path / "out"))
    assert index.stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="seed"):
        main.body(config(tmp_path / "out", seed=1))


@pytest.mark.parametrize("keys", [{"count": 0}, {"test": 1.5}, {"size": 2}, {"shard_samples": 0}])
def test_a_number_out_of_range_is_refused(tmp_path: Path, keys: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(keys))}={next(iter(keys.values()))}"):
        main.body(config(tmp_path / "out", **keys))


@pytest.mark.parametrize(("name", "value"), [("path", "/eyes"), ("height", 35), ("width", 55)])
def test_a_key_that_means_nothing_to_the_source_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name}={value}: source=printed_digits has no use for it; its keys are count"):
        main.body(config(tmp_path / "out", **{name: value}))
    assert not (tmp_path / "out").exists()


def test_the_help_explains_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, source in SOURCES.items():
        assert f"source={name}: {source.help}" in shown and all(f"{key}=" in shown for key in source.keys)


def test_an_optional_key_of_the_wrong_type_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([f"out={tmp_path / 'out'}", "count=many"]) == 2
    assert "count=many on the command line: expected an integer" in capsys.readouterr().err
