"""Glue between a switch's own Python interface and `shaken_plugin.switch`."""
