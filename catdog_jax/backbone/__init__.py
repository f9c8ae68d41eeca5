"""The frozen network: VGG16's 13 convolutions, and how weights from anywhere become its parameters.

Read `layers` (the table), `vgg16` (the Flax module made from it), `winograd` (the same convolutions
with fewer products, for CPUs), `native` (the same in C++), `amx` (direct ones in bfloat16, in C++ for
CPUs with tile registers), `compiling` (C++ where it runs), `accelerators` (laid out for GPUs and TPUs)
and `pooling` (cells to features). Then `weights` (any source to parameters),
`published` (where known weights are), `checkpoint_files` (the formats), `safe_pickle` (PyTorch's files
without running them), `layouts` (whose names are these?) and `pixels` (which pixels do they expect?).

A new convolution is a file like `winograd` and a line in `features.extractor.ALGORITHMS`; a new
file format is a reader in `checkpoint_files`.
"""
