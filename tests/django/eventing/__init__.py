"""A Django app whose models send events."""
