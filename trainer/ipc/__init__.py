"""Events, the run folder and the pipe between worker and windows."""
