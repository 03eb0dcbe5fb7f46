"""`python -m simroute` is the `simroute` command."""

from simroute.cli.main import main

if __name__ == "__main__":
    main()
