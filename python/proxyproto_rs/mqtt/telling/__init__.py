"""Tells operators what happens: log, audit log, metrics, history."""
