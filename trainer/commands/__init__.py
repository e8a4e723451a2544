"""Commands of `python -m trainer` that take more than a screen of code."""
