"""Makes the int8 network of a model directory; `engines.int8` finds it there.

photographs   chooses those to calibrate with and those to compare on
nncf_int8     has NNCF quantize the network, as OpenVINO's or as ONNX
quantize      the whole: a model directory with the int8 network and its record
"""
