"""Search by words: what a text asks for, as weights on what is known of the items."""
