"""Labels from unlabelled images: encoders, pretext tasks, clusters, classifiers, label tables."""
