"""``python -m kobox`` is the command ``kobox``."""

from kobox.cli import main

raise SystemExit(main())
