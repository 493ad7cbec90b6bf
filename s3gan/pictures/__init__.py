"""Pictures of what a generator has learned, one kind of figure per file; `s3gan.look` puts them into the report."""
