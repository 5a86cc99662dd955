"""The cases by name, in the order in which they run: the GPU first, since the peers hide it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jobs.bench.cases import cores, device, engine, lakes, models, spectra, streaming, tails
from jobs.bench.options import Options
from jobs.bench.result import Result


@dataclass(frozen=True, slots=True)
class Case:
    """A group of measurements: its name, what it aims at, and how it is run."""

    name: str
    goal: str
    run: Callable[[Options], Iterator[Result]]

    @property
    def about(self) -> str:
        """What it measures, in a sentence."""
        return (self.run.__doc__ or "").strip()


_ALL = (
    Case("llama7b", "12 s of wall time on one H200", device.whole_model),
    Case("tail-fit", "100 x from n = 1024, 1000 x at 16384", tails.tail_fit),
    Case("powerlaw", "1000 x", tails.powerlaw_package),
    Case("alternatives", "500 x for the truncated power law", tails.alternatives),
    Case("bootstrap", "2 CPU s for 2,500 replicates", tails.bootstrap),
    Case("spectrum", "6.5 x at 4096 x 4096", spectra.one_layer),
    Case("memory", "3 Gram matrices and a block of rows", spectra.memory),
    Case("minilm", "5 x", models.minilm),
    Case("two-cores", "9 x for a transformer, 20 x for ResNets, in wall time", cores.two_cores),
    Case("nulls", "25 x", models.nulls),
    Case("resnet", "20 x on two cores, which two-cores measures", models.resnets),
    Case("stream", "1.15 x the longer of download and compute", streaming.overlap),
    Case("transport", "1.2 CPU s a GB", streaming.transport),
    Case("engine", "5 % over the kernels, 1 ms a tiny matrix", engine.overhead),
    Case("startup", "0.4 CPU s", engine.startup),
    Case("forecast", "within 2 x", engine.estimates),
    Case("compaction", "1,000,000 rows/s of wall time on two cores", lakes.merge_parts),
    Case("questions", "1 s each, cold", lakes.ask_a_large_lake),
)
CASES = {case.name: case for case in _ALL}
