"""One file a model family, and what reads their files."""
