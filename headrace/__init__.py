"""headrace: the store where an agent's output never lands on a world that has moved on.

The four stages are packages of their own, linked in from the top of the checkout:
``headrace.schemas`` → ``headrace.producers`` → ``headrace.processors`` → ``headrace.projections``.
Here live the doors: the log port and its adapters, settings, the HTTP API and the command line.
"""
