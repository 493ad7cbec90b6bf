import pytest

from simgan.schedule import Phase, Schedule

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
