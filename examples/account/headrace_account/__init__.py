"""``bank.account``: an example of an entity kind that a package of one's own brings to headrace."""
