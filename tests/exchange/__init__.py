"""Policies in and out of a store."""
