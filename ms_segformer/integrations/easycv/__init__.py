"""EasyCV and mmcv, where they are installed: hooks, policies and transforms that a configuration names and we lack."""
