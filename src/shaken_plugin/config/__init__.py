"""Settings and policy files: YAML, checked as a whole, every problem with its place."""
