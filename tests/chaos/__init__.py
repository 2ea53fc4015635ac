"""Chaos: real processes are killed, stopped and starved, and a checker says whether anybody was lied to.

==============  =====================================================================================
``history``     what clients asked and were told, with times
``evidence``    a history, the log and the tables as they are at the end
``checker``     the rules, over evidence: pure, and linear in what it looks at
``workload``    clients over HTTP: facts, proposals, answers, reads that bring tokens
``processes``   the parts as real processes, killed and stopped by their ids
``stand_in``    headrace with a trap in it: it dies, or falls asleep, at a named point
``stages``      where all that runs: in one process on files; ``distributed``: many, on Kafka and PostgreSQL
``run``         a workload, faults, healing, and the checker's word on all of it
==============  =====================================================================================

``make chaos`` runs what is in ``long``, for minutes and with a seed that it prints; the tests here are the short form,
and those of the checker.
"""
