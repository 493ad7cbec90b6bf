import pytest

from cluster_jobs.core.files import read_json, write_json
from s3gan.evaluation.score_file import ScoreFile, mean_of


def inputs(checkpoint="a", seed=0, nimg=100):
    return {"images": {"checkpoint": checkpoint, "nimg": nimg, "seed": seed}, "count": 10}


def draw(value, checkpoint="a", seed=0, **more):
    return {"inputs": inputs(checkpoint, seed), "results": {"fd": {"name": "fd", "value": value, **more}}}


def test_one_draw_is_shown_as_it_is():
    assert mean_of([draw(1.5, sd=0.1)]) == {"fd": {"name": "fd", "value": 1.5, "sd": 0.1}}


def test_sample_seeds_give_a_mean_with_their_standard_deviation():
    found = mean_of([draw(1.0, seed=0, sd=7), draw(2.0, seed=1), draw(6.0, seed=2)])["fd"]
    assert found == {"name": "fd", "value": 3.0, "sd": 7, "draws": 3, "sample_sd": pytest.approx(7**0.5)}


def test_checkpoints_have_a_deviation_of_their_own():
    found = mean_of([draw(1.0, "a", 0), draw(3.0, "a", 1), draw(6.0, "b", 0), draw(10.0, "b", 1)])["fd"]
    assert found["value"] == 5
    assert found["sample_sd"] == pytest.approx(((2 + 8) / 2) ** 0.5)  # variances 2 and 8 within the checkpoints
    assert found["checkpoint_sd"] == pytest.approx(18**0.5)  # of the means 2 and 8
    assert "sample_sd" not in mean_of([draw(1.0, "a"), draw(2.0, "b")])["fd"]


def test_classes_are_averaged_where_they_have_a_value():
    found = mean_of([draw(1.0, per_class=[1.0, None, None]), draw(2.0, seed=1, per_class=[3.0, 2.0, None])])["fd"]
    assert found["per_class"] == [2.0, 2.0, None]


def test_floors_are_of_real_images_and_no_draws():
    draws = [{"inputs": inputs(seed=seed), "results": {"floor_fd": {"value": 0.5}}} for seed in range(2)]
    assert mean_of(draws) == {"floor_fd": {"value": 0.5}}


def test_what_is_not_available_stays_so():
    reason = {"n/a": "no labels"}
    assert mean_of([{"inputs": inputs(), "results": reason}, {"inputs": inputs(seed=1), "results": reason}]) == reason


def test_finished_draws_are_found_again_and_others_are_due(tmp_path):
    path, wanted = tmp_path / "scores.json", {"distances": [inputs(), inputs(seed=1)], "cas": [inputs()]}
    first = ScoreFile(path, wanted)
    assert (first.due(0), first.due(1)) == (["distances", "cas"], ["distances"])
    first.add("distances", 0, {"fd": {"value": 1.0}})
    first.write()
    second = ScoreFile(path, wanted)
    assert second.any_due() and (second.due(0), second.due(1)) == (["cas"], ["distances"])
    second.add("distances", 1, {"fd": {"value": 3.0}})
    second.add("cas", 0, {"pool": {"n/a": "why"}})
    second.write()
    stored = read_json(path)
    assert stored["distances"]["results"]["fd"]["value"] == 2
    assert [draw["results"]["fd"]["value"] for draw in stored["distances"]["draws"]] == [1, 3]
    assert not ScoreFile(path, wanted).any_due()
    assert ScoreFile(path, wanted).by_draw(["distances"])[1] == {
        "images": {"checkpoint": "a", "nimg": 100, "seed": 1},
        "scores": {"fd": {"value": 3.0}},
        "missing": {},
    }


def test_draws_that_are_no_longer_wanted_go_and_other_parts_stay(tmp_path):
    path = tmp_path / "scores.json"
    old = {"distances": {"results": {}, "inputs": {}}, "distances_encoder": {"results": {"fd": {}}, "draws": []}}
    write_json(path, old)  # an older file, without draws, and a task of another detector
    file = ScoreFile(path, {"distances": [inputs()]})
    assert file.due(0) == ["distances"]
    file.add("distances", 0, {"fd": {"value": 1.0}})
    file.write()
    stored = read_json(path)
    assert stored["distances_encoder"] == old["distances_encoder"]
    newer = ScoreFile(path, {"distances": [inputs("b")]})
    newer.add("distances", 0, {"fd": {"value": 2.0}})
    newer.write()
    assert [draw["inputs"] for draw in read_json(path)["distances"]["draws"]] == [inputs("b")]
