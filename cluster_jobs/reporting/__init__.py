"""The report: sections, the HTML page, curves and grids of images."""
