"""The command line: keys, parsing, --help, exit code and exit record."""
