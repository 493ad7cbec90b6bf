"""A run: loop, checkpoints, rollback, metrics, preemption, watchdog."""
