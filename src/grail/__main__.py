"""``python -m grail`` is the command ``grail`` (accelerate launches modules, not commands)."""

import sys

from grail.cli import main

sys.exit(main())
