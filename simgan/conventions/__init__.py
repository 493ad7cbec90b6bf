"""Conventions that simulators, readers and tasks share: the frame of gaze directions, depth as grey levels."""
