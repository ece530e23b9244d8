"""``python -m grail`` is the command ``grail`` (accelerate launches modules, not commands)."""

import sys

from grail.cli.main import main

sys.exit(main())
