"""Clients for programs that are not services, such as scripts, web applications and tests."""
