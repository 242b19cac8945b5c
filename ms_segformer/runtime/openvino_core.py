"""The one `openvino.Core` that everything in this package compiles with; it lives as long as the process.

A second one would be a danger: the CPU plugin of a Core (OpenVINO 2026.4) gives the thread that loads it a signal stack
of its own and puts the former one back when it is unloaded. Of two Cores that are dropped in the order they were made
in, the second puts back the stack of the first, which is no longer mapped, and the next signal that Python handles
(Ctrl-C, a child that ends) kills the process.
"""
from .silent_import import import_openvino

CORE = import_openvino().Core()
