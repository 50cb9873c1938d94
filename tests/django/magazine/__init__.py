"""A Django app with models of every kind."""
