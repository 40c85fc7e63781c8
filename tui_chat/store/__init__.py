"""Conversations on disk: append-only files that are the only truth."""
