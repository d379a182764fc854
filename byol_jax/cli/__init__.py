"""The command line: flags, modes, messages and exit codes."""
