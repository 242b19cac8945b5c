import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hub.fixtures import hub, python  # noqa: E402,F401
