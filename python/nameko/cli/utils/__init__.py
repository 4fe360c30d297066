"""Helpers of the command line, at their path in version 3."""
