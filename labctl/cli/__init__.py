"""The command line: options in, a use case called, a view printed."""
