"""Published runs: ``+recipe=NAME`` reads ``recipe/NAME.yaml``."""
