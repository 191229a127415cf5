"""One file per sub-command: ``EXAMPLES``, ``configure(parser)`` and ``run(options, progress) -> exit code or None``."""
