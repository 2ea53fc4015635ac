"""A proxy in front of a PostgreSQL server that loses what it is told to lose."""

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.proxy import FaultProxy


class Proxy(FaultProxy):
    """With :meth:`lose_answer` or :meth:`lose_question` it breaks a connection at its next ``COMMIT``: after the server
    has done it, or before it hears of it. ``address`` is the server's, by way of the proxy."""

    def __init__(self, address: str) -> None:
        server = conninfo_to_dict(address)
        host, port = str(server.get("host", "localhost")), int(str(server.get("port") or 5432))
        super().__init__(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else host, port)
        # Encrypted, a COMMIT could not be told from anything else.
        self._address = make_conninfo(
            address, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable"
        )

    @property
    def address(self) -> str:
        """What to connect with."""
        return self._address

    @property
    def lost(self) -> int:
        """How many commits were broken at."""
        return self.seen.lost

    def lose_answer(self) -> None:
        """The next commit happens, and nobody hears of it."""
        self.lose_reply(_is_commit)

    def lose_question(self) -> None:
        """The next commit does not happen, and nobody hears of that either."""
        self.lose_request(_is_commit)


def _is_commit(request: bytes) -> bool:
    return b"COMMIT\0" in request
