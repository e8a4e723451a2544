"""The embedded example: pictures drawn by code, the tiny model Ember, its score."""
