"""Data: sources of image and label pairs, transforms, and `SegDataset` that joins them."""
