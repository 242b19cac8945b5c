"""The folder that `ms-segformer run` puts first on PYTHONPATH, so that Python processes started by the script begin
with `sitecustomize.py`; nothing of it is imported by this package."""
