"""Set-up, doctor and launcher: the standard library only, so that it runs before anything is installed."""
