"""Training of a refiner. Start with refiner_training.py, then step.py, losses.py, history.py and schedule.py."""
