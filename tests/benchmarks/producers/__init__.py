"""What comes in from providers, measured: ``make bench-producers``."""
