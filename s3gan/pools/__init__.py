"""Pool directory, filters, rejection sampling, export; for the commands `s3gan.generate` and `s3gan.export`."""
