"""Calling a cluster from programs that are not services: scripts, web applications, tests."""
