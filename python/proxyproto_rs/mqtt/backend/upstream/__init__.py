"""Servers behind the front."""
