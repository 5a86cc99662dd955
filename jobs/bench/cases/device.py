"""The whole of Llama-2-7B on a GPU."""

from collections.abc import Iterator

from jobs.bench.children import Child
from jobs.bench.options import Options
from jobs.bench.pairs import figure
from jobs.bench.result import NotRunError, Result
from jobs.verbs.scanning import choose_device
from scanner.llama import llama_7b
from schemas.config import ScanConfig
from schemas.errors import UsageError


def whole_model(options: Options) -> Iterator[Result]:
    """226 random bf16 matrices of real shapes on the device, to eigenvalues and fits; no download."""
    if options.device != "cuda":
        raise NotRunError("not measured: no CUDA device; with one, take --device cuda")
    with Child() as child:
        try:
            device = child.call(choose_device, options.device, ScanConfig())
        except UsageError as error:
            raise NotRunError(f"not measured: no CUDA device ({error})") from error
        seconds = [child.call(llama_7b, device) for _ in range(options.few)]
    yield figure("Llama-2-7B, float64", seconds, "wall s", at_most=12.0, note="30 s is the first target")
