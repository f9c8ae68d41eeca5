"""One ONNX file and the folders around it.

Read `onnx_file` (the stage: write, compare with JAX, publish), `graph` (the network as ONNX nodes),
`precisions` (fp16 and int8, and the gate they must pass), `triton` (a model repository) and
`browser` (a static folder that classifies without a server).
"""
