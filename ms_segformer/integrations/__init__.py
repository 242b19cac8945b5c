"""The packages that this one goes between: `modelscope`, which is changed while it is active, and `easycv`."""
