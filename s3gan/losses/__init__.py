"""Adversarial, auxiliary, penalties, regularisers."""
