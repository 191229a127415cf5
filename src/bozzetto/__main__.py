"""``python -m bozzetto``."""

from .app.cli import main

raise SystemExit(main())
