"""Optimisers and schedules as tables."""
