"""Recipes: settings of published experiments. `+recipe=NAME` reads `recipe/NAME.yaml`."""
