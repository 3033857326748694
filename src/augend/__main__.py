"""``python -m augend``."""

from augend.cli import main

main()
