"""Label tables: drawing a budget, importing labels, inferring labels by clusters or a classifier, and reports."""
