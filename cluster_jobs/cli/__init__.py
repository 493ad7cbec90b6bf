"""How a command is made: keys, parsing, --help, exit code and exit record."""
