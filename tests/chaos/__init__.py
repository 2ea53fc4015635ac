"""Chaos: real processes are killed, stopped and starved, and a checker says whether anybody was lied to.

==============  =====================================================================================
``history``     what clients asked and were told, with times
``evidence``    a history, the log and the tables as they are at the end
``checker``     the rules, over evidence: pure, and linear in what it looks at
``workload``    clients over HTTP: facts, proposals, answers, reads that bring tokens
``processes``   the parts as real processes, killed and stopped by their ids
``run``         a workload, faults, healing, and the checker's word on all of it
==============  =====================================================================================

``python -m tests.chaos`` (``make chaos``) runs for minutes, with a seed that it prints; the tests here are the short
form.
"""
