"""A trained model in use: embedding of new media and of collections, and recommendation."""
