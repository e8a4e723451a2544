"""What a run is: the schema, its files, its migrations."""
