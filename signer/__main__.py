import sys

from .cli.parser import main

# Each worker imports this module when it is spawned, and must not run the command again.
if __name__ == "__main__":
    sys.exit(main())
