import sys

from .cli.parser import main

# Workers that are spawned import this module, too.
if __name__ == "__main__":
    sys.exit(main())
