"""Set-up with the standard library only."""
