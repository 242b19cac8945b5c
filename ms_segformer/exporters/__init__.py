"""Writes a model as ONNX or OpenVINO IR. `segformer_exporter` has ModelScope's exporter, which its registry imports by
name.
"""
