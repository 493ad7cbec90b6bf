"""Gaze frame, depth grey: shared by simulators, readers, tasks."""
