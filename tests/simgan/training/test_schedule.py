import copy

import pytest

from simgan.training.schedule import AutoSchedule, Phase, Schedule

D_PHASES = (Phase.warm_discriminator, Phase.discriminator)


@pytest.mark.parametrize("schedule", [Schedule(3, 2, 2, 1), Schedule(0, 0, 1, 3), Schedule(4, 0, 5, 2)])
def test_the_real_batches_of_a_step_are_the_discriminator_steps_before_it(schedule: Schedule) -> None:
    counted = 0
    for step in range(60):
        assert schedule.real_batches(step) == counted
        counted += schedule.phase(step) in D_PHASES


def test_warm_ups_come_first_then_rounds_of_k_g_and_k_d() -> None:
    letters = {Phase.warm_refiner: "w", Phase.warm_discriminator: "v", Phase.refiner: "R", Phase.discriminator: "D"}
    schedule = Schedule(warm_refiner=2, warm_discriminator=3, k_g=2, k_d=1)
    assert "".join(letters[schedule.phase(step)] for step in range(12)) == "wwvvvRRDRRDR"


def adaptive(k_g: int = 2, max_k_g: int = 4) -> AutoSchedule:
    return AutoSchedule(Schedule(2, 3, k_g, 1), low=0.3, high=0.6, max_k_g=max_k_g)


def test_r_gets_more_steps_while_d_is_too_strong_and_fewer_while_it_is_too_weak() -> None:
    schedule, seen = adaptive(), []
    for place, loss in enumerate([0.1, 0.1, 0.1, 0.45, 0.69, 0.69, 0.69, 0.69, 0.1]):
        schedule.observe(10 + 5 * place, {"loss/d": loss})
        seen.append(schedule.metrics()["k_g"])
    assert seen == [3, 4, 4, 4, 3, 2, 1, 1, 2]


@pytest.mark.parametrize("means", [None, {}, {"loss/d": float("nan")}])
def test_nothing_moves_without_a_loss_or_in_the_warm_ups(means: dict[str, float] | None) -> None:
    schedule = adaptive()
    schedule.observe(20, means)
    schedule.observe(5, {"loss/d": 0.01})
    assert schedule.metrics() == {"k_g": 2}


def test_the_real_batches_are_counted_over_changes_and_restores() -> None:
    schedule, counted = adaptive(), 0
    for step in range(200):
        assert schedule.real_batches(step) == counted
        counted += schedule.phase(step) in D_PHASES
        if step % 7 == 6:
            schedule.observe(step + 1, {"loss/d": [0.1, 0.1, 0.7][step // 7 % 3]})
            restored = adaptive()
            restored.load_state_dict(copy.deepcopy(schedule.state_dict()))
            schedule = restored
    assert counted > 20
