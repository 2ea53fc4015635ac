"""The share of sources that goes with a fold: the accounts on its partitions, and told at once when those move."""

from headrace.sourcing import FoldShare
from tests.contract.rich_history import TENANT
from tests.worker.process import migrated
from tests.worker.site import PARTITIONS, Site, until


def test_the_share_goes_where_the_partitions_go_and_is_told(site: Site) -> None:
    migrated(site)
    one, other = site.fold(), site.fold()
    accounts = [author.account for author in site.authors]
    shares = [FoldShare(fold, site.authors[0].intake) for fold in (one, other)]
    told: list[int] = []

    def holding() -> list[list[str]]:
        return [[account for account in accounts if share.holds(TENANT, account)] for share in shares]

    assert holding() == [[], []]
    with shares[0].listening(lambda: told.append(len(holding()[0]))):
        one.start()
        until(lambda: holding() == [accounts, []])
        until(lambda: told[-1:] == [PARTITIONS])
        other.start()
        until(lambda: sorted(map(len, holding())) == [PARTITIONS // 2] * 2)
        assert sorted([*holding()[0], *holding()[1]]) == sorted(accounts)
        until(lambda: told[-1:] == [PARTITIONS // 2])
        assert other.stop()
        until(lambda: holding() == [accounts, []])
        until(lambda: told[-1:] == [PARTITIONS])
    count = len(told)
    assert one.stop()
    assert holding() == [[], []]
    assert len(told) == count
