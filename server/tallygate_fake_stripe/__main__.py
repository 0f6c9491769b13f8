"""`python -m tallygate_fake_stripe`.

Guarantees: the same as the command. Refuses to know: anything else.
"""

import sys

from .command import main

sys.exit(main())
