"""Which mixture of pools trains the best classifier, and which held-out labels its sources have seen (mixtures)."""
