"""Other ways to fold the same events: each a process of its own. ``infra/lock/peers.txt`` is what they need, apart from
Faust, which headrace needs itself."""
