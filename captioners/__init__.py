"""Taggers and captioners, each in a process of its own."""
