"""Every writer is tested by reading its text back with the format's real reader."""
