"""The command line: ``nameko run``, ``nameko shell``, ``nameko show-config``."""
