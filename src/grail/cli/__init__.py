"""The command line: arguments in, messages, tables and exit codes out."""
