"""`python -m otelprogress_collector`."""

from otelprogress_collector.cli import main

if __name__ == "__main__":
    main()
