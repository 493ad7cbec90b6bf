"""Judge mixtures, label leaks (mixtures)."""
