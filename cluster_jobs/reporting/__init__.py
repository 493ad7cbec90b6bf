"""Report sections, HTML, curves, grids."""
