"""The command line: ``nameko run``, ``nameko shell`` and the others."""


def cli() -> int:
    """The command line, by the name that it has in version 3."""
    from nameko.cli.main import main

    return main()
