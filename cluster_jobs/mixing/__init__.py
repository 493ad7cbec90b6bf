"""One pool out of several (mix)."""
