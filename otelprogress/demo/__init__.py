"""The main job on real data: what `otelprogress demo` and `make demo` run."""
