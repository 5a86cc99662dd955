"""Makes quantised.safetensors: codes and scales as the quantisers write them, and the weights they mean by them.

Run with the packages named in VERSIONS installed; a test reads the file without them:

    python tests/golden/make_quantised.py tests/golden/quantised.safetensors
"""

import json
import sys
from importlib.metadata import version

import torch
from compressed_tensors.compressors import (
    FloatQuantizationCompressor,
    IntQuantizationCompressor,
    MXFP4PackedCompressor,
    MXFP6PackedCompressor,
    MXFP8QuantizationCompressor,
    NVFP4PackedCompressor,
    PackedQuantizationCompressor,
)
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

VERSIONS = ("bitsandbytes", "compressed-tensors", "torch")
ROWS, COLUMNS = 32, 64


def weight():
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.05


def compressed(compressor, arguments, tensors):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    stored = compressor.compress({"weight": weight()} | tensors(scheme.weights), scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"]


def by_minmax(shape, dim):
    """Scales of cells of W viewed as `shape`, reduced over `dim`."""

    def tensors(arguments):
        cells = weight().reshape(shape)
        scale, zero = calculate_qparams(cells.amin(dim), cells.amax(dim), arguments)
        return {"weight_scale": scale, "weight_zero_point": zero}

    return tensors


GROUPS = by_minmax((ROWS, COLUMNS // 32, 32), 2)
CHANNEL = by_minmax((ROWS, 1, COLUMNS), 2)
TENSOR = by_minmax((1, ROWS * COLUMNS), 1)


def power_of_two(_):
    top = weight().reshape(ROWS, -1, 32).abs().amax(2)
    return {"weight_scale": torch.exp2(torch.floor(torch.log2(top / 4)))}


def nv(_):
    overall = torch.tensor([2688.0]) / weight().abs().max()
    local = weight().reshape(ROWS, -1, 16).abs().amax(2) / 6 * overall
    return {"weight_scale": local.to(torch.float8_e4m3fn).float(), "weight_global_scale": overall}


def integers():
    group = {"type": "int", "strategy": "group", "group_size": 32}
    for bits in (3, 4, 8):
        yield f"packed{bits}", PackedQuantizationCompressor, group | {"num_bits": bits}, GROUPS
    asymmetric = group | {"num_bits": 4, "symmetric": False}
    yield "packed4_asymmetric", PackedQuantizationCompressor, asymmetric, GROUPS
    channel = {"type": "int", "strategy": "channel", "num_bits": 8}
    yield "int8_channel", IntQuantizationCompressor, channel, CHANNEL
    yield "int8_tensor", IntQuantizationCompressor, channel | {"strategy": "tensor"}, TENSOR


def floats():
    eight = {"type": "float", "num_bits": 8}
    yield "fp8_channel", FloatQuantizationCompressor, eight | {"strategy": "channel"}, CHANNEL
    yield "fp8_tensor", FloatQuantizationCompressor, eight | {"strategy": "tensor"}, TENSOR
    micro = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8}
    yield "mxfp4", MXFP4PackedCompressor, micro | {"num_bits": 4}, power_of_two
    yield "mxfp6", MXFP6PackedCompressor, micro | {"num_bits": 6}, power_of_two
    yield "mxfp8", MXFP8QuantizationCompressor, micro | {"num_bits": 8}, power_of_two
    local = {"strategy": "tensor_group", "group_size": 16, "scale_dtype": torch.float8_e4m3fn}
    yield "nvfp4", NVFP4PackedCompressor, {"type": "float", "num_bits": 4} | local, nv


def bitsandbytes():
    import bitsandbytes.functional as bnb

    for kind, nested in (("nf4", False), ("nf4", True), ("fp4", True)):
        codes, state = bnb.quantize_4bit(weight(), blocksize=64, quant_type=kind, compress_statistics=nested)
        named = {f"weight.{part}": held for part, held in state.as_dict(packed=True).items()}
        yield f"{kind}{'_nested' * nested}", {"weight": codes} | named, bnb.dequantize_4bit(codes, state)
    codes, scales, _ = bnb.int8_vectorwise_quant(weight().half())
    yield "int8_rows", {"weight": codes, "SCB": scales}, bnb.int8_vectorwise_dequant(codes, scales)


def main(path):
    tensors, bits = {}, {}
    for name, compressor, arguments, scales in [*integers(), *floats()]:
        stored, expected = compressed(compressor, arguments, scales)
        tensors |= {f"{name}.{part}": held.contiguous() for part, held in stored.items()}
        tensors[f"expected.{name}"] = expected.float()
        bits[name] = arguments["num_bits"]
    for name, stored, expected in bitsandbytes():
        tensors |= {f"{name}.{part}": held.contiguous() for part, held in stored.items()}
        tensors[f"expected.{name}"] = expected.float()
    about = {"made_with": json.dumps({p: version(p) for p in VERSIONS}), "bits": json.dumps(bits)}
    save_file(tensors, path, metadata=about)


if __name__ == "__main__":
    main(sys.argv[1])
