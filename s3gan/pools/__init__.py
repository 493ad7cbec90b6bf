"""Pool directory, filters, rejection sampling, export (generate, export)."""
