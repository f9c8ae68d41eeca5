"""Reads XLA's compiled programs as text: which kernels run, how often, and what they compute and move."""

import collections
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# Instructions that are no kernels: names of memory, and copies that run beside the kernels
_FREE = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id", "iota")
_BESIDE = ("copy-start", "copy-done", "async-start", "async-done", "slice-start", "slice-done")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8}
_LINE = re.compile(r"^\s+(?:ROOT )?%?(?P<name>\S+) = (?P<shape>\(.*?\)|\S+) (?P<opcode>[a-z][\w-]*)\((?P<rest>.*)$")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[^\s(]+) \(.*\{\s*$")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Kernel(NamedTuple):
    """One kernel of a program.

    Attributes:
      kind: what it does, in a word or two.
      bytes: what it reads and writes.
      flops: of its convolutions and products of matrices.
      cycles: as the compiler estimates them; 0 where it does not.
      times: how often it runs: more than once in a loop.
      dtype: of its result.
    """

    kind: str
    bytes: int
    flops: int
    cycles: int
    times: int
    dtype: str


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str


Computations = dict[str, list[_Instruction]]


def kernels(text: str) -> list[Kernel]:
    """The kernels of a compiled program, those in loops once, with the number of their turns."""
    computations, entry = _computations(text)
    return _of(entry, computations, 1)


def _computations(text: str) -> tuple[Computations, str]:
    found: Computations = {}
    entry = here = ""
    for line in text.splitlines():
        if opened := _COMPUTATION.match(line):
            here = opened["name"]
            found[here] = []
            entry = here if opened["entry"] else entry
        elif here and (one := _LINE.match(line)):
            found[here].append(_Instruction(one["name"], one["shape"], one["opcode"], one["rest"]))
    return found, entry


def _of(name: str, computations: Computations, times: int) -> list[Kernel]:
    shapes = {one.name: one.shape for one in computations[name]}
    found = []
    for one in computations[name]:
        called = {
            key: re.search(rf"\b{key}=%?([^\s,)}}]+)", one.rest) for key in ("body", "condition", "calls", "to_apply")
        }
        if one.opcode == "while" and called["body"] and called["condition"]:
            turns = _turns(one, computations[called["condition"][1]])
            found += _of(called["body"][1], computations, times * turns)
        elif one.opcode == "call" and called["to_apply"]:
            found += _of(called["to_apply"][1], computations, times)
        elif one.opcode not in _FREE + _BESIDE:
            inside = _inside(called["calls"][1], computations) if called["calls"] else []
            found.append(_kernel(one, inside, shapes, times))
    return found


def _inside(name: str, computations: Computations) -> list[_Instruction]:
    """The instructions of a fusion, with those of fusions within it."""
    found = []
    for one in computations.get(name, []):
        deeper = re.search(r"\bcalls=%?([^\s,)}]+)", one.rest) if one.opcode == "fusion" else None
        found += [one, *(_inside(deeper[1], computations) if deeper else ())]  # its name stands for its result
    return found


def _turns(loop: _Instruction, condition: Iterable[_Instruction]) -> int:
    """How often a loop runs: as it says, or the constant that its condition compares with; 1 where neither tells."""
    if said := re.search(r'known_trip_count"?:?\{"n":"(\d+)"', loop.rest):
        return int(said[1])
    constants = [
        int(number[1]) for one in condition if one.opcode == "constant" and (number := re.match(r"(\d+)\)", one.rest))
    ]
    return max(constants, default=1)


def _kernel(one: _Instruction, inside: list[_Instruction], shapes: dict[str, str], times: int) -> Kernel:
    operands = re.findall(r"%([^\s,()]+)", one.rest.split("), ")[0])
    moved = sum(_size(shapes.get(operand, "")) for operand in dict.fromkeys(operands)) + _size(one.shape)
    local = shapes | {other.name: other.shape for other in inside}
    flops = sum(_flops(other, local) for other in [one, *inside])
    cycles = re.search(r'"estimated_cycles":"(\d+)"', one.rest)
    return Kernel(_kind(one, inside), moved, flops, int(cycles[1]) if cycles else 0, times, _type(one.shape))


def _size(shape: str) -> int:
    sizes = [(_BYTES.get(kind, 0), dims) for kind, dims in _SHAPE.findall(shape)]
    return sum(each * math.prod(int(dim) for dim in dims.split(",") if dim) for each, dims in sizes)


def _type(shape: str) -> str:
    found = _SHAPE.search(shape)
    return found[1] if found else ""


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return [int(dim) for dim in found[2].split(",") if dim] if found else []


def _flops(one: _Instruction, shapes: dict[str, str]) -> int:
    """Two for each multiplication of a convolution or a product of matrices; 0 of anything else."""
    operands = re.findall(r"%([^\s,()]+)", one.rest.split("), ")[0])
    if labels := re.search(r"dim_labels=\w+_(\w+)->", one.rest):
        kernel = _dims(shapes.get(operands[1], "")) if len(operands) > 1 else []
        outputs = kernel[labels[1].index("o")] if len(kernel) == len(labels[1]) else 0
        return 2 * math.prod(_dims(one.shape)) * math.prod(kernel) // outputs if outputs else 0
    if contracted := re.search(r"lhs_contracting_dims=\{([\d,]+)\}", one.rest):
        left = _dims(shapes.get(operands[0], ""))
        return (
            2 * math.prod(_dims(one.shape)) * math.prod(left[int(i)] for i in contracted[1].split(",")) if left else 0
        )
    if "cublas" in one.rest or "gemm" in one.rest:
        numbers = re.search(r'lhs_contracting_dimensions":\["?(\d+)', one.rest)
        left = _dims(shapes.get(operands[0], "")) if operands else []
        return 2 * math.prod(_dims(one.shape)) * left[int(numbers[1])] if numbers and left else 0
    return 0


def _kind(one: _Instruction, inside: list[_Instruction]) -> str:
    if target := re.search(r'custom_call_target="([^"]+)"', one.rest):
        names = {"__cudnn$convBiasActivationForward": "cuDNN convolution with bias and ReLU"}
        return names.get(target[1], target[1].strip("_").replace("__cublas$", "cuBLAS "))
    opcodes = [one.opcode, *(other.opcode for other in inside)]
    words = {
        "convolution": "convolution",
        "dot": "product",
        "reduce-window": "window",
        "gather": "gather",
        "reduce": "reduction",
        "transpose": "transposition",
        "sort": "sort",
    }
    return next((word for opcode, word in words.items() if opcode in opcodes), "elementwise")


def summary(found: list[Kernel], flops: Mapping[str, float], bandwidth: float) -> dict[str, Any]:
    """What the kernels add up to, and by kind; with peaks of a device the least time that they take there.

    Args:
      found: of `kernels`.
      flops: a second, by type; empty where they are not known.
      bandwidth: bytes a second.
    """
    kinds: dict[str, dict[str, Any]] = collections.defaultdict(
        lambda: {"count": 0, "bytes": 0, "flops": 0, "cycles": 0}
    )
    least = 0.0
    for one in found:
        row = kinds[one.kind]
        row["count"] += one.times
        for part in ("bytes", "flops", "cycles"):
            row[part] += one.times * getattr(one, part)
        if bandwidth:
            computing = one.flops / flops[one.dtype] if one.flops else 0.0
            least += one.times * max(computing, one.bytes / bandwidth)
    total = {part: sum(row[part] for row in kinds.values()) for part in ("bytes", "flops", "cycles")}
    by_kind = dict(sorted(kinds.items(), key=lambda item: -item[1]["count"]))
    return {"kernels": sum(one.times for one in found), **total, "roofline seconds": least or None, "kinds": by_kind}
