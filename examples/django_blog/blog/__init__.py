"""The blog's Django app."""
