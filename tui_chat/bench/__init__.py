"""Benchmarks that a user and CI can run: `tui-chat bench`."""
