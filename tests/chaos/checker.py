"""The checker: does what clients were told, what the log holds and what the tables hold fit together?

Log order makes every rule a walk: nothing is searched for. The rules, by the names that violations carry:

=================  ================================================================================================
acknowledged       what was acknowledged is on the log where it was said to be, and took effect
refused, phantom   what was refused is not; nor is anything that nobody sent
repeated           no attempt landed twice
one effect         an identity counts once
order              acknowledged before another was sent: stands before it on their partition
chain, token       the chain over the records is the one in the tables, and in every token that was given out
lag, disposition   the tables have reached the end, with one row for every record
fold, replay       tables and verdicts are, byte for byte, what the log folds to once more
read               a read is the fold of the log up to its token, by the naive reference and by the engine
regressed          a read that brought a token is never of an earlier state
verdict missing,   every proposal was judged, once at each record
verdict twice
verdict told       what somebody was told of a verdict is what the log says
verdict changed    only answers and the ends of intents change a verdict
wrong acceptance,  the naive reference of the rule, on its own, judges every proposal alike
spurious refusal,
wrong verdict
two accepted       one basis of one entity carries one acceptance, but for what the policy lets pass
internal error,    no fault from outside comes out as a 500; a token that was given is known ever after
token refused
tenant             rows, answers and probes stay within their tenant
=================  ================================================================================================
"""

from tests.chaos.evidence import Evidence, Violation
from tests.chaos.judgements import check_verdicts
from tests.chaos.reads import check_reads
from tests.chaos.tables import check_caught_up, check_chain, check_fold
from tests.chaos.writes import check_accounts, check_answers, check_writes


def check(evidence: Evidence) -> list[Violation]:
    """Everything that does not hold; empty is what everybody hopes for."""
    found, naively = check_reads(evidence)
    found += check_verdicts(evidence, naively)
    for part in (check_writes, check_accounts, check_answers, check_caught_up, check_chain, check_fold):
        found += part(evidence)
    return found
