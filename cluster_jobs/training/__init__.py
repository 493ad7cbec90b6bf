"""A training run. Start with loop.py, the one training loop, and run.py, the run directory that it works on.

Then, in any order: checkpoint.py, rollback.py (diverged runs), preemption.py (what happens on SIGTERM), watchdog.py
(hung runs), run_metrics.py, frozen_config.py, and the tools of a training step: optimizer_step.py, ema.py, memory.py.
"""
