"""Given, inferred, clustering, classifier, provenance (label)."""
