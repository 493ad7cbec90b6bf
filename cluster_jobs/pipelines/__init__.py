"""YAML -> stages -> processes of this machine (submit, status, logs)."""
