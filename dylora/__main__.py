"""`python -m dylora`: the `dylora` command where a launcher wants a module."""

from dylora.suite.commands import main

if __name__ == "__main__":
    main()
