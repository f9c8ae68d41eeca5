"""What an attacker would pickle."""

import os
from pathlib import Path


class MakeDirectory:
    """Pickles as a call of os.mkdir, as an attacker would write it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
