"""A log copied elsewhere: the same log, whatever happens on the way."""
