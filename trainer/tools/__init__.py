"""Tools for model files: one module a tool, described for command line and window alike in `catalog`."""
