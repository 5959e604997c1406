"""Speed, as ratios against peers measured in the same run: `python -m bench NAME… [--quick] [--json FILE]`."""
