"""One ONNX file and the folders around it.

Read `onnx_file` (`export`: build, compare with JAX, write), `graph` (the network as ONNX nodes),
`parity` (does the file say what JAX says), `precisions` (fp16 and int8; another one is a function and
a line in `PRECISIONS`) and `gate` (are they accurate enough to be published), then `triton` (a model
repository) and `browser` (a static folder that classifies without a server).
"""
