"""A stage for trying headrace out: real servers of other people's, run beside it as processes of their own."""
