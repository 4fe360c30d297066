"""Helpers to test services, as plain objects or in a container."""
