"""Tables built anew beside the live ones, and put in their place."""
