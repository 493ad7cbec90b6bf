"""Which mixture of pools trains the best classifier, and which held-out labels it depends on; for `s3gan.mixtures`."""
