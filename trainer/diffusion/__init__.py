"""Noise, timesteps, targets and losses."""
